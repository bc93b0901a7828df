package hooks

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// wire is a connection on which a test says what it likes.
type wire struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (w *world) wire() *wire {
	t := w.t.(*testing.T)
	conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &wire{t, conn, bufio.NewReader(conn)}
}

func (c *wire) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *wire) receive() answer {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: "GET"})
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.Close {
		resp.Header.Set("Connection", "close") // which ReadResponse takes away
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: string(text)}
}

// ended tells whether the server closed the connection.
func (c *wire) ended() bool {
	_, err := c.r.ReadByte()
	return err == io.EOF
}

// get is the text of a GET, as web-1's.
func (w *world) get(path, etag string, wait int) string {
	s := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: a\r\nX-Request-Id: r-1\r\nAuthorization: Bearer %s\r\n", path, w.host)
	if wait > 0 {
		s += fmt.Sprintf("If-None-Match: %s\r\nPrefer: wait=%d\r\n", etag, wait)
	}
	return s + "\r\n"
}

// off counts the polls and connections that are off net/http.
func (w *world) off() (parked, silent int) {
	n := w.s.shared.Polls.Count()
	return n.Detached, n.Silent
}

func (w *world) becomes(what string, is func() bool) {
	w.t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatalf("never: %s", what)
}

// TestParked: one connection parks, is woken, asks something else, parks again,
// times out, reports, and nobody can tell by the answers.
func TestParked(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	c := w.wire()
	c.send(w.get(desiredPath, "", 0))
	etag := c.receive().header.Get("Etag")
	for seq := int64(1); seq <= 3; seq++ {
		c.send(w.get(desiredPath, etag, 60))
		w.becomes("the poll parks off net/http", func() bool { parked, _ := w.off(); return parked == 1 })
		w.promote(seq, w.entry("*", a))
		woken := c.receive()
		if want := fmt.Sprintf(`"seq":%d,`, seq); woken.status != 200 || !strings.Contains(woken.body, want) {
			t.Fatalf("woken with %s, want %s", woken, want)
		}
		etag = woken.header.Get("Etag")
		w.becomes("the connection waits for a request", func() bool { _, silent := w.off(); return silent == 1 })

		c.send(strings.Replace(w.get(desiredPath, "", 0), "Host: a", "Host: a\r\nPrefer: wait=60", 1))
		now := c.receive()
		for _, h := range []http.Header{woken.header, now.header} {
			if h.Get("Date") == "" {
				t.Error("an answer has no Date")
			}
			h.Del("Date")
		}
		if !reflect.DeepEqual(now, woken) {
			t.Errorf("at once  %v %s\nparked  %v %s", now.header, now, woken.header, woken)
		}
	}
	c.send(w.get(desiredPath, etag, 1))
	over := c.receive()
	if over.status != 304 || over.header.Get("Etag") != etag || over.header.Get("Preference-Applied") != "wait=1" || over.header.Get("Content-Length") != "" {
		t.Errorf("time-out: %s %v", over, over.header)
	}
	// The poll is counted, once, and its host is not online because of it.
	for status, want := range map[string]float64{"200": 7, "304": 1} {
		if n := valueOf(t, w.s.metrics.requests.WithLabelValues("desired", status)); n != want {
			t.Errorf("%v answers %s are counted, want %v", n, status, want)
		}
	}
	if n := w.s.shared.Polls.Count(); n.Waiting != 0 || n.Woken != 3 {
		t.Errorf("%+v", n)
	}
	if n := w.s.hosts.Presence("web-1").Parked(); n != 0 {
		t.Errorf("web-1 has %d polls", n)
	}
	body := `{}`
	c.send(fmt.Sprintf("PUT /api/v1/hosts/web-1/status HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", w.host, len(body), body))
	if a := c.receive(); a.status != 400 {
		t.Errorf("a request with a body on a connection that was parked: %s", a)
	}
}

func valueOf(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	all, err := r.Gather()
	if err != nil || len(all) != 1 {
		t.Fatalf("%d metrics, %v", len(all), err)
	}
	m := all[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// TestParkedError: what a look says after the wake-up may be an error.
func TestParkedError(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	w.promote(1, w.entry("*", a))
	const path = "/api/v1/channels/web/store-path?target=web-1"
	c := w.wire()
	c.send(w.get(path, `"1"`, 60))
	w.parked(1)
	w.promote(2, w.entry("*", a))
	if got := c.receive(); got.status != 200 || got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("woken with %s %v", got, got.header)
	}
	c.send(w.get(path, `"2"`, 60))
	w.parked(1)
	w.must(w.do("DELETE", "/api/v1/channels/web", w.ci, nil, "If-Match", `"2"`), 204, "")
	if got := c.receive(); got.status != 404 || !strings.Contains(got.body, "was deleted") {
		t.Errorf("woken with %s", got)
	}
	c.send(w.get("/api/v1/channels", "", 0))
	if got := c.receive(); got.status != 200 {
		t.Errorf("after an error: %s", got)
	}
}

// TestParkedPipelined: a client that does not wait for its answer gets all of
// them, in their order.
func TestParkedPipelined(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	w.promote(1, w.entry("*", a))
	for i, early := range []string{"with the poll", "while it is parked"} {
		c := w.wire()
		c.send(w.get(desiredPath, "", 0))
		poll, next := w.get(desiredPath, c.receive().header.Get("Etag"), 60), w.get("/api/v1/channels", "", 0)
		if i == 0 {
			c.send(poll + next[:10])
			w.parked(1)
		} else {
			c.send(poll)
			w.becomes("the poll parks off net/http", func() bool { parked, _ := w.off(); return parked == 1 })
			c.send(next[:10])
			w.becomes("the poll waits without looking", func() bool { parked, _ := w.off(); return parked == 0 })
		}
		w.promote(int64(i)+2, w.entry("*", a))
		if got := c.receive(); got.status != 200 || !strings.Contains(got.body, fmt.Sprintf(`"seq":%d,`, i+2)) {
			t.Errorf("%s: first answer %s", early, got)
		}
		c.send(next[10:])
		if got := c.receive(); got.status != 200 || !strings.Contains(got.body, `"channels":[`) {
			t.Errorf("%s: second answer %s", early, got)
		}
	}
}

// TestParkedStops: parked polls are answered and silent connections closed, all
// before Stop returns.
func TestParkedStops(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	parked, silent := w.wire(), w.wire()
	for _, c := range []*wire{parked, silent} {
		c.send(w.get(desiredPath, "", 0))
	}
	etag := parked.receive().header.Get("Etag")
	silent.receive()
	silent.send(w.get(desiredPath, etag, 60))
	w.parked(1)
	w.promote(1, w.entry("*", a))
	etag = silent.receive().header.Get("Etag")
	parked.send(w.get(desiredPath, etag, 60))
	w.becomes("one is parked and one silent", func() bool { a, b := w.off(); return a == 1 && b == 1 })
	w.s.Stop()
	if a, _ := w.off(); a != 0 {
		t.Errorf("%d polls are parked after Stop", a)
	}
	if got := parked.receive(); got.status != 503 || got.header.Get("Connection") != "close" || got.header.Get("Retry-After") == "" {
		t.Errorf("parked: %s %v", got, got.header)
	}
	if !parked.ended() || !silent.ended() {
		t.Error("a connection is still open")
	}
	// Whoever comes later is told the same, by net/http.
	late := w.wire()
	late.send(w.get(desiredPath, etag, 60))
	if got := late.receive(); got.status != 503 {
		t.Errorf("after Stop: %s", got)
	}
}

// TestParkedLeaves: neither a parked poll nor a silent connection outlives its
// client, nor its patience.
func TestParkedLeaves(t *testing.T) {
	w := newWorld(t)
	w.s.shared.Polls.Listener(300 * time.Millisecond)
	c := w.wire()
	c.send(w.get(desiredPath, "", 0))
	etag := c.receive().header.Get("Etag")
	c.send(w.get(desiredPath, etag, 1))
	if got := c.receive(); got.status != 304 {
		t.Fatalf("time-out: %s", got)
	}
	begin := time.Now()
	if !c.ended() || time.Since(begin) > 10*time.Second {
		t.Error("a silent connection stays open")
	}
	for _, silent := range []bool{false, true} {
		c := w.wire()
		wait := 60
		if silent {
			w.s.shared.Polls.Listener(time.Minute)
			wait = 1
		}
		c.send(w.get(desiredPath, etag, wait))
		if silent {
			c.receive()
			w.becomes("it is silent", func() bool { _, n := w.off(); return n == 1 })
		} else {
			w.becomes("it is parked", func() bool { n, _ := w.off(); return n == 1 })
		}
		_ = c.conn.Close()
		w.becomes("nothing is left", func() bool { a, b := w.off(); return a+b == 0 })
	}
	if n := w.s.hosts.Presence("web-1").Parked(); n != 0 {
		t.Errorf("web-1 has %d polls", n)
	}
}

// TestNotParked: what cannot leave net/http waits there.
func TestNotParked(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	seq := int64(0)
	check := func(what, text string) {
		t.Helper()
		c := w.wire()
		c.send(text)
		w.parked(1)
		if n, _ := w.off(); n != 0 {
			t.Errorf("%s: the poll is off net/http", what)
		}
		seq++
		w.promote(seq, w.entry("*", a))
		line, err := c.r.ReadString('\n')
		if err != nil || !strings.Contains(line, " 200 ") {
			t.Errorf("%s: woken with %q (%v)", what, line, err)
		}
		_ = c.conn.Close()
	}
	poll := func() string {
		return w.get(desiredPath, w.do("GET", desiredPath, w.host, nil).header.Get("Etag"), 60)
	}
	check("HEAD", strings.Replace(poll(), "GET", "HEAD", 1))
	check("HTTP/1.0", strings.Replace(poll(), "HTTP/1.1", "HTTP/1.0", 1))
	check("body", strings.Replace(poll(), "\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx", 1))
	_ = w.parking.Close()
	check("nobody serves the listener", poll())
}

// TestParkedAndClosed: a proxy that asks for the end of the connection gets its
// answer and the end, and the poll waits where it needs least.
func TestParkedAndClosed(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	etag := w.do("GET", desiredPath, w.host, nil).header.Get("Etag")
	for _, wait := range []int{60, 1} { // woken, and over
		c := w.wire()
		c.send(strings.Replace(w.get(desiredPath, etag, wait), "Host: a", "Host: a\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close", 1))
		if wait == 60 {
			w.becomes("it is parked", func() bool { n, _ := w.off(); return n == 1 })
			w.promote(1, w.entry("*", a))
		}
		got := c.receive()
		if want := map[int]int{60: 200, 1: 304}[wait]; got.status != want || got.header.Get("Connection") != "close" || !c.ended() {
			t.Errorf("wait %d: %s %v, want %d and the end", wait, got, got.header, want)
		}
		etag = got.header.Get("Etag")
	}
}

// TestParkedText: an answer that is no JSON says so after a wake-up, too.
func TestParkedText(t *testing.T) {
	w := newWorld(t)
	a, b := w.system("a"), w.system("b")
	w.promote(1, w.entry("*", a))
	c := w.wire()
	path := "/api/v1/channels/web/store-path"
	c.send(w.get(path, w.do("GET", path, w.host, nil).header.Get("Etag"), 60))
	w.becomes("it is parked", func() bool { n, _ := w.off(); return n == 1 })
	w.promote(2, w.entry("*", b))
	if got := c.receive(); got.body != "/nix/store/"+string(b)+"\n" || got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%s %v", got, got.header)
	}
}
