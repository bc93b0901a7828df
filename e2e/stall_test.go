package e2e

import (
	"net/http"
	"testing"
	"time"
)

// A client that stops sending is given up after body_idle with a 400, and leaves nothing; one that
// sends slowly but steadily is not.
func TestStalledBody(t *testing.T) {
	t.Parallel()
	st := newStage(t, func(c *Config) { c.BodyIdle = "1s" })
	p := NewPath("stalled", RandomNAR(900, 50_000))
	doc, file := st.Describe(p)
	head := "PUT /" + doc.URL + " HTTP/1.1\nHost: x\nAuthorization: Bearer " + st.Token + "\nContent-Length: " + itoa(len(file)) + "\n\n"
	before := st.server.Files()
	for _, sent := range []int{0, 100, len(file) - 1} {
		r := DialRaw(t, st.server.Addr())
		r.Send(head)
		r.SendBytes(file[:sent])
		start := time.Now()
		reply, _ := r.Answer(http.MethodPut)
		if took := time.Since(start); took < 500*time.Millisecond || took > 5*time.Second {
			t.Errorf("given up after %v, body_idle is 1s", took)
		}
		st.refused(reply, before, "", 400)
	}
	r := DialRaw(t, st.server.Addr())
	r.Send(head)
	for i := range 6 { // three seconds, never one without a byte
		time.Sleep(500 * time.Millisecond)
		r.SendBytes(file[i*len(file)/6 : (i+1)*len(file)/6])
	}
	if reply, _ := r.Answer(http.MethodPut); !reply.OK() {
		t.Errorf("a slow upload: %v", reply)
	}
}

// The default of body_idle is thirty seconds.
func TestStalledBodyDefault(t *testing.T) {
	t.Parallel()
	onlyLong(t)
	st := newStage(t, nil)
	r := DialRaw(t, st.server.Addr())
	r.Send("PUT /nar/" + nixDigest(nil) + ".nar HTTP/1.1\nHost: x\nAuthorization: Bearer " + st.Token + "\nContent-Length: 1000\n\nsome")
	before := st.server.Files()
	start := time.Now()
	reply, _ := r.Answer(http.MethodPut)
	if took := time.Since(start); took < 20*time.Second || took > 45*time.Second {
		t.Errorf("given up after %v", took)
	}
	st.T = t
	if reply.Status != 400 {
		t.Errorf("%v: want 400", reply)
	}
	if diff := before.diff(st.server.Files()); len(diff) > 0 {
		t.Logf("left, or the temporary file of before: %v", diff)
	}
}

// Headers that come drop by drop end too.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	onlyLong(t)
	s := NewServer(t, nil)
	r := DialRaw(t, s.Addr())
	_ = r.Conn.SetDeadline(time.Now().Add(3 * time.Minute))
	start := time.Now()
	for {
		time.Sleep(time.Second)
		if _, err := r.Conn.Write([]byte("X")); err != nil {
			break
		}
		if time.Since(start) > 90*time.Second {
			t.Fatal("a request head may take more than 90 s")
		}
	}
}
