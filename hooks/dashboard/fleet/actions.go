package fleet

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/condition"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/rights"
	"narwharf/signing/access/scope"
)

func query(s string) string { return url.QueryEscape(s) }

func compare(a, b string) int { return strings.Compare(a, b) }

// deed is what somebody does with a host.
type deed struct {
	name, word, text string
	danger           bool
	reason           frame.Reasons
	ends             bool // it may end by itself
}

var deeds = []deed{
	{"hold", "Hold", "The host stays where it is: it begins with nothing new until the hold ends.", false, frame.MustReason, true},
	{"unhold", "End the hold", "The host may begin with what its channel has for it.", false, frame.NoReason, false},
	{"retry", "Try again", "The host tries the release again that it did not come to run.", false, frame.NoReason, false},
	{"revert", "Send it back", "The host leaves the release for the last system that it found well before.", true, frame.NoReason, false},
	{"release", "Take its reboot slot", "Another host may reboot. Do this only if the host will not come back: else two are away at once.", true, frame.NoReason, false},
}

func actions() (list []frame.Action) {
	for i := range deeds {
		d := &deeds[i]
		list = append(list, frame.Action{Path: "/ui/hosts/{host}/" + d.name, Needs: rights.Operates(scope.AnyChannel), Ask: d.ask, Do: d.do})
	}
	return list
}

func (d *deed) ask(r *frame.Request) (*frame.Question, error) {
	name := r.Param("host")
	var h api.Host
	if err := r.Get("/api/v1/hosts/"+url.PathEscape(name), &h); err != nil {
		return nil, err
	}
	l := line{Host: &h, Kind: condition.Of(&h, r.Now())}
	q := &frame.Question{
		Title: d.word + ": " + name, Text: d.text, Button: d.word, Danger: d.danger, Reason: d.reason, For: d.ends,
		Lines: []string{fmt.Sprintf("It is %s (%s), and runs %s", l.Word(), l.State(), l.Version())},
		Keep:  map[string]string{"seq": strconv.FormatInt(h.WantedSeq, 10)}, Back: "/ui/hosts/" + url.PathEscape(name),
	}
	if why := l.Why(); why != "" {
		q.Lines = append(q.Lines, why)
	}
	if seen := r.Query.Get("seq"); seen != "" && seen != q.Keep["seq"] {
		q.Stale = fmt.Sprintf("The page that you came from showed release %s. The host is to run release %d by now: look at it first.", seen, h.WantedSeq)
	}
	return q, nil
}

func (d *deed) do(r *frame.Request, a *frame.Answer) (string, error) {
	name := url.PathEscape(r.Param("host"))
	path, next := "/api/v1/hosts/"+name, "/ui/hosts/"+name
	switch d.name {
	case "hold":
		hold := &api.Hold{Reason: a.Reason}
		if !a.Until.IsZero() {
			hold.Until = &a.Until
		}
		return next, r.Do(http.MethodPatch, path, map[string]any{"hold": hold}, nil)
	case "unhold":
		return next, r.Do(http.MethodPatch, path, map[string]any{"unhold": true}, nil)
	}
	seq, err := strconv.ParseInt(a.Form.Get("seq"), 10, 64)
	if err != nil {
		return "", api.Errorf(api.BadRequest, "The form does not say which release it is about: load the page again.")
	}
	return next, r.Do(http.MethodPost, path+"/"+d.name, map[string]int64{"seq": seq}, nil)
}
