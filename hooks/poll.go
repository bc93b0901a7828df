package hooks

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"narwharf/hooks/api"
)

// maxWait bounds a parked poll. Proxies cut at 50 or 60 s; the agent asks
// for less than that, curl users may ask for more.
const maxWait = 300 * time.Second

// preferWait reads "Prefer: wait=N" (RFC 7240), or ?wait=N for shell scripts.
func preferWait(req *http.Request) time.Duration {
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

// A poll is a GET whose answer may change: it is answered at once if its ETag
// is not the one that the caller has, else when it changes or the caller's
// patience is over.
//
// While parked it holds one goroutine, and of the request only what is here.
type poll struct {
	s     *Server
	call  *call
	names []string // topics after which to look again
	// look tells the answer of this moment.
	look func() (status int, etag string, text []byte, err error)
	over func(gone bool) // called once when the poll has ended; may be nil

	gone   bool   // the client left before its answer
	have   string // If-None-Match
	etag   string // of the last look
	wait   time.Duration
	until  time.Time
	waiter waiter
}

// poll answers a poll, now or later: when it returns, the poll may have been
// taken off net/http and c is not the caller's any more.
func (s *Server) poll(c *call, names []string, over func(gone bool), look func() (status int, etag string, text []byte, err error)) error {
	p := &poll{s: s, call: c, names: names, look: look, over: over, have: c.req.Header.Get("If-None-Match"), wait: preferWait(c.req)}
	c.w.Header()["Vary"] = []string{"Prefer"}
	answered, err := p.answer()
	if answered || err != nil {
		p.end()
		return err
	}
	p.until = time.Now().Add(p.wait)
	s.metrics.parked.Inc()
	if p.detach() {
		return nil
	}
	gone := c.req.Context().Done()
	return p.follow(func() outcome { return p.block(gone) })
}

// answer joins the topics, looks, and answers if there is anything to say.
// Topics are joined before the look, so nothing is missed in between. After
// false the poll is to wait.
func (p *poll) answer() (answered bool, err error) {
	waits := false
	p.waiter.reset()
	p.s.topics.join(&p.waiter, p.names)
	defer func() {
		if !waits {
			p.s.topics.leave(&p.waiter, p.names)
		}
	}()
	status, etag, text, err := p.look()
	if err != nil {
		return false, err
	}
	if p.have != "" && etagMatches(p.have, etag) {
		if p.wait > 0 {
			p.etag, waits = etag, true
			return false, nil
		}
		status = http.StatusNotModified
	}
	p.reply(status, etag, text)
	return true, nil
}

func (p *poll) reply(status int, etag string, text []byte) {
	h := p.call.w.Header()
	h["Etag"] = []string{etag}
	if p.wait > 0 {
		h["Preference-Applied"] = []string{"wait=" + strconv.Itoa(int(p.wait.Seconds()))}
	}
	if status == http.StatusNotModified {
		p.call.w.WriteHeader(status)
		return
	}
	writeRaw(p.call.w, status, text)
}

// follow is a parked poll until its answer. block waits for one outcome.
func (p *poll) follow(block func() outcome) error {
	defer p.end()
	defer p.s.metrics.parked.Dec()
	for {
		outcome := block()
		p.s.topics.leave(&p.waiter, p.names)
		switch outcome {
		case woken:
			p.s.metrics.wakeups.Inc()
			if answered, err := p.answer(); answered || err != nil {
				return err
			}
		case timedOut:
			p.reply(http.StatusNotModified, p.etag, nil)
			return nil
		case stopped:
			e := api.Errorf(api.Unavailable, "the server is stopping; ask again in a moment")
			e.RetryAfter = time.Duration(1+rand.IntN(5)) * time.Second
			return e
		case clientGone:
			p.gone = true
			return nil
		}
	}
}

func (p *poll) end() {
	if p.over != nil {
		p.over(p.gone)
	}
}

type outcome int

const (
	woken outcome = iota
	timedOut
	stopped
	clientGone
)

// block waits without looking at the connection; gone is closed when the
// client has left.
func (p *poll) block(gone <-chan struct{}) outcome {
	timer := time.NewTimer(time.Until(p.until))
	defer timer.Stop()
	select {
	case <-p.waiter.channel():
		return p.s.orStopped(woken)
	case <-timer.C:
		return timedOut
	case <-p.s.stopping:
		return stopped
	case <-gone:
		return clientGone
	}
}

// orStopped is o, unless the server is stopping, which wakes everybody.
func (s *Server) orStopped(o outcome) outcome {
	select {
	case <-s.stopping:
		return stopped
	default:
		return o
	}
}

// etagMatches is the comparison of If-None-Match (RFC 9110, 13.1.2), weak.
func etagMatches(header, etag string) bool {
	for item := range strings.SplitSeq(header, ",") {
		item = strings.TrimPrefix(strings.TrimSpace(item), "W/")
		if item == "*" || item == etag {
			return true
		}
	}
	return false
}

// bodyAndTag encodes a value; its ETag is a hash of the bytes, so that it
// survives a restart and never lies.
func bodyAndTag(value any) (etag string, text []byte, err error) {
	if text, err = json.Marshal(value); err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(text)
	return `"` + hex.EncodeToString(sum[:16]) + `"`, append(text, '\n'), nil
}
