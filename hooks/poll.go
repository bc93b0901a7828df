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

// poll answers a GET whose answer may change: at once if its ETag is not the
// one that the caller has, else when it changes or the caller's patience is
// over. look is called again after each wake-up of one of the topics; the
// topics are taken before it looks, so nothing is missed in between.
//
// While parked, the request holds this goroutine and no more.
func (s *Server) poll(c *call, names []string, look func() (status int, etag string, text []byte, err error)) error {
	wait := preferWait(c.req)
	have := c.req.Header.Get("If-None-Match")
	h := c.w.Header()
	h["Vary"] = []string{"Prefer"}
	var timeout <-chan time.Time
	for {
		wakes, done := s.join(names)
		status, etag, text, err := look()
		if err != nil {
			done()
			return err
		}
		if have == "" || !etagMatches(have, etag) {
			done()
			h["Etag"] = []string{etag}
			s.applied(c, wait)
			writeRaw(c.w, status, text)
			return nil
		}
		if wait == 0 {
			done()
			h["Etag"] = []string{etag}
			c.w.WriteHeader(http.StatusNotModified)
			return nil
		}
		text = nil // a parked poll keeps nothing alive
		if timeout == nil {
			t := time.NewTimer(wait)
			defer t.Stop()
			timeout = t.C
			s.metrics.parked.Inc()
			defer s.metrics.parked.Dec()
		}
		outcome := s.park(c, wakes, timeout)
		done()
		switch outcome {
		case woken:
			s.metrics.wakeups.Inc()
		case timedOut:
			h["Etag"] = []string{etag}
			s.applied(c, wait)
			c.w.WriteHeader(http.StatusNotModified)
			return nil
		case stopped:
			e := api.Errorf(http.StatusServiceUnavailable, api.Unavailable, "the server is stopping; ask again in a moment")
			e.RetryAfter = time.Duration(1+rand.IntN(5)) * time.Second
			return e
		case clientGone:
			return nil
		}
	}
}

func (s *Server) applied(c *call, wait time.Duration) {
	if wait > 0 {
		c.w.Header()["Preference-Applied"] = []string{"wait=" + strconv.Itoa(int(wait.Seconds()))}
	}
}

type outcome int

const (
	woken outcome = iota
	timedOut
	stopped
	clientGone
)

// join takes the wake-up channels of up to two topics.
func (s *Server) join(names []string) (wakes [2]<-chan struct{}, done func()) {
	var dones [2]func()
	for i, n := range names {
		wakes[i], dones[i] = s.topics.wait(n)
	}
	return wakes, func() {
		for _, d := range dones {
			if d != nil {
				d()
			}
		}
	}
}

func (s *Server) park(c *call, wakes [2]<-chan struct{}, timeout <-chan time.Time) outcome {
	select {
	case <-wakes[0]:
		return woken
	case <-wakes[1]:
		return woken
	case <-timeout:
		return timedOut
	case <-s.stopping:
		return stopped
	case <-c.req.Context().Done():
		return clientGone
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
