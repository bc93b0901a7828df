// Package reply is how the handlers of hooks answer: the one place where errors become
// answers, and values as JSON.
package reply

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/limits"
	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/hooks/longpoll"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
)

// Error answers with an error, and logs one that has no answer.
func Error(w http.ResponseWriter, req *http.Request, err error, log *slog.Logger) {
	var e *api.Error
	var d *access.Denied
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &e):
	case away(err) != "":
		e = api.Errorf(api.Unavailable, "%s", away(err))
		e.RetryAfter = time.Duration(5+rand.IntN(10)) * time.Second
	case errors.Is(err, longpoll.ErrStopping), errors.Is(err, limits.ErrFull), errors.Is(err, limits.ErrSlow), errors.Is(err, limits.ErrBusy): // agents drop what is 400
		e = api.Errorf(api.Unavailable, "%v", err)
		e.RetryAfter = time.Duration(1+rand.IntN(5)) * time.Second
	case errors.As(err, &d):
		kind, after := api.Forbidden, time.Duration(0)
		switch d.Status {
		case http.StatusMisdirectedRequest:
			kind = api.Misdirected
		case http.StatusUnauthorized:
			kind = api.Unauthorized
			w.Header().Set("WWW-Authenticate", access.Challenge)
		case http.StatusServiceUnavailable: // the token could not be checked
			kind, after = api.Unavailable, time.Duration(1+rand.IntN(5))*time.Second
		}
		e = api.Errorf(kind, "%s", err.Error())
		e.RetryAfter = after
	case errors.As(err, &tooBig):
		e = api.Errorf(api.TooLarge, "the body is larger than %d bytes", tooBig.Limit)
	case req.Context().Err() != nil:
		return // the client left; nobody reads this
	default:
		log.Error("request failed", "method", req.Method, "path", req.URL.Path, "request", RequestID(w), "error", err)
		e = api.Errorf(api.Internal, "internal error; the server's log says more")
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(e.RetryAfter.Seconds())))
	}
	w.Header()["Cache-Control"] = []string{"no-store"} // of what is at no route, too
	body := *e
	body.Message, body.Request = clip.Line(e.Message, maxMessage), RequestID(w)
	if strings.HasPrefix(req.URL.Path, FleetLock) { // its own form: the protocol's
		JSON(w, e.Status, map[string]string{"kind": string(e.Kind), "value": body.Message, "request": body.Request})
		return
	}
	JSON(w, e.Status, &body)
}

// maxMessage bounds what an answer says, in bytes. It may repeat what the client said, whose terminal shows it.
const maxMessage = 4 << 10

// away says what is away that an answer needs, "" if nothing is.
func away(err error) string {
	var frozen *state.Frozen
	switch {
	case errors.As(err, &frozen):
		return frozen.Why
	case errors.Is(err, state.ErrUnavailable):
		return "the database of this server does not answer"
	case errors.Is(err, blob.ErrAway):
		return "the bucket that keeps this server's files does not answer: try again later"
	}
	return ""
}

// FleetLock is where the URLs of that protocol begin, whose errors have another form.
const FleetLock = "/fleetlock/"

// JSON answers with a value of package api.
func JSON(w http.ResponseWriter, status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // types of package api always encode
	}
	longpoll.WriteJSON(w, status, append(text, '\n'))
}

// Decode reads a body that is JSON. An empty object is for the endpoint to refuse: what is
// missing from it differs.
func Decode(body io.Reader, value any) error {
	err := json.NewDecoder(body).Decode(value)
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) || errors.Is(err, limits.ErrSlow) {
		return err
	}
	if err != nil {
		return api.Errorf(api.BadRequest, "the body is not the JSON that belongs here: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}
