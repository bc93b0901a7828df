package longpoll

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Poll is one GET.
type Poll struct {
	Topics []string // after which to look again
	// Also names further topics, and is asked before each look. May be nil.
	Also func() []string
	// Look tells the answer of this moment. It is called from several
	// goroutines, one after the other, and must not hold the request.
	Look func() (Answer, error)
	Over func(gone bool) // called once when the poll has ended; gone: the client left before its answer. May be nil
	// Park is called with the request's context when the poll begins to wait within net/http,
	// and leave when it goes on. May be nil.
	Park func(ctx context.Context) (leave func())
	// Ends is when the caller's right to wait does; zero: never. A poll that waits is answered by then.
	Ends time.Time
	// Route is a name for Options.Answered.
	Route string
}

// Answer is what a look found.
type Answer struct {
	Status int
	ETag   string
	Older  string // an ETag that means as much to those who still send it; may be ""
	Body   []byte
	Type   string // of the body; "": JSON
}

// poll is a Poll under way.
type poll struct {
	Poll
	all    *Polls
	w      http.ResponseWriter
	req    *http.Request
	joined []string // topics
	id     []string // of the request, once it is detached

	gone   bool
	have   string // If-None-Match
	etag   string // of the last look
	later  error  // why that could not answer
	wait   time.Duration
	until  time.Time
	waiter waiter
}

// Serve answers a poll, now or later. If it was parked outside of net/http,
// detached is true when Serve returns: w is not the caller's any more, and the
// answer is not there yet. An error is the caller's to answer.
func (p *Polls) Serve(w http.ResponseWriter, req *http.Request, q Poll) (detached bool, err error) {
	one := &poll{Poll: q, all: p, w: w, req: req, have: req.Header.Get("If-None-Match"), wait: Wait(req)}
	w.Header()["Vary"] = []string{"Prefer"}
	answered, err := one.answer()
	if answered || err != nil {
		one.end()
		return false, err
	}
	wait := one.wait
	if wait == 0 {
		wait = patience
	}
	if one.until = time.Now().Add(wait); !q.Ends.IsZero() && q.Ends.Before(one.until) {
		one.until = q.Ends
	}
	if one.detach() {
		return true, nil
	}
	gone := req.Context().Done()
	return false, one.follow(func() outcome {
		if q.Park != nil {
			defer q.Park(req.Context())()
		}
		return one.block(gone)
	})
}

// answer joins the topics, looks, and answers if there is anything to say. After
// false the poll is to wait.
func (p *poll) answer() (answered bool, err error) {
	waits := false
	p.waiter.reset()
	p.joined = p.Topics
	if p.Also != nil {
		p.joined = append(slices.Clip(p.joined), p.Also()...)
	}
	p.all.topics.join(&p.waiter, p.joined)
	defer func() {
		if !waits {
			p.all.topics.leave(&p.waiter, p.joined)
		}
	}()
	a, err := p.Look()
	if p.later = nil; errors.As(err, new(Later)) {
		p.later, waits = err, true
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if p.have != "" && (Matches(p.have, a.ETag) || a.Older != "" && Matches(p.have, a.Older)) {
		if p.wait > 0 {
			p.etag, waits = a.ETag, true
			return false, nil
		}
		a.Status = http.StatusNotModified
	}
	p.reply(a)
	return true, nil
}

func (p *poll) reply(a Answer) {
	h := p.w.Header()
	h["Etag"] = []string{a.ETag}
	if p.wait > 0 {
		h["Preference-Applied"] = []string{"wait=" + strconv.Itoa(int(p.wait.Seconds()))}
	}
	if a.Status == http.StatusNotModified {
		p.w.WriteHeader(a.Status)
		return
	}
	if a.Type != "" {
		h.Set("Content-Type", a.Type)
	}
	WriteJSON(p.w, a.Status, a.Body)
}

// WriteJSON answers with a body that is JSON, unless the header says otherwise.
func WriteJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only if the client left
}

// follow is a parked poll until its answer. block waits for one outcome.
func (p *poll) follow(block func() outcome) error {
	defer p.end()
	for {
		outcome := block()
		p.all.topics.leave(&p.waiter, p.joined)
		switch outcome {
		case woken:
			p.all.woken.Add(1)
			if answered, err := p.answer(); answered || err != nil {
				return err
			}
		case timedOut:
			if p.later != nil {
				return p.later
			}
			p.reply(Answer{Status: http.StatusNotModified, ETag: p.etag})
			return nil
		case stopped:
			return ErrStopping
		case clientGone:
			p.gone = true
			return nil
		}
	}
}

func (p *poll) end() {
	if p.Over != nil {
		p.Over(p.gone)
	}
}

type outcome int

const (
	woken outcome = iota
	timedOut
	stopped
	clientGone
)

// block waits without looking at the connection; gone is closed when the client
// has left.
func (p *poll) block(gone <-chan struct{}) outcome {
	timer := time.NewTimer(time.Until(p.until))
	defer timer.Stop()
	select {
	case <-p.waiter.channel():
		return p.all.orStopped(woken)
	case <-timer.C:
		return timedOut
	case <-p.all.stopping:
		return stopped
	case <-gone:
		return clientGone
	}
}

// maxWait bounds a parked poll. Proxies cut at 50 or 60 s; the agent asks
// for less than that, curl users may ask for more.
const maxWait = 300 * time.Second

// Wait reads "Prefer: wait=N" (RFC 7240), or ?wait=N for shell scripts; 0 if
// there is neither.
func Wait(req *http.Request) time.Duration {
	values := []string{}
	for _, line := range req.Header.Values("Prefer") {
		values = append(values, strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ';' })...)
	}
	if q := req.URL.Query().Get("wait"); q != "" {
		values = append(values, "wait="+strings.TrimSuffix(q, "s"))
	}
	for _, v := range values {
		if n, ok := strings.CutPrefix(strings.TrimSpace(v), "wait="); ok {
			if secs, err := strconv.Atoi(strings.Trim(n, `"`)); err == nil && secs > 0 {
				return min(time.Duration(secs)*time.Second, maxWait)
			}
		}
	}
	return 0
}

// Matches is the comparison of If-None-Match (RFC 9110, 13.1.2), weak.
func Matches(header, etag string) bool {
	for item := range strings.SplitSeq(header, ",") {
		item = strings.TrimPrefix(strings.TrimSpace(item), "W/")
		if item == "*" || item == etag {
			return true
		}
	}
	return false
}

// JSON encodes a value as an answer with status 200. Its ETag is a hash of the
// bytes, so that it survives a restart and never lies.
func JSON(value any) (Answer, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return Answer{}, err
	}
	sum := sha256.Sum256(text)
	return Answer{Status: http.StatusOK, ETag: `"` + hex.EncodeToString(sum[:16]) + `"`, Body: append(text, '\n')}, nil
}
