//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing"
)

func TestReportRequest(t *testing.T) {
	h := testHosts()
	p := testPromoter(t)
	r, err := p.next([]string{signing.Everyone})
	if err != nil {
		t.Fatal(err)
	}
	var sent api.Promotion
	if err := json.Unmarshal(r.body, &sent); err != nil {
		t.Fatal(err)
	}
	pointer, err := sent.Pointer(0)
	if err != nil {
		t.Fatal(err)
	}
	desired, err := json.Marshal(api.Desired{Channel: webChannel, Seq: r.seq, Pointer: pointer})
	if err != nil {
		t.Fatal(err)
	}
	text, err := h.report(1, r, desired)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	var st api.Status
	if err := json.Unmarshal(body, &st); err != nil {
		t.Fatal(err)
	}
	if req.URL.Path != "/api/v1/hosts/h00001/status" || st.Counter != 7 || st.State != api.OK || st.Current != p.systems[r.seq%2].StorePath || st.Head == nil {
		t.Errorf("%s %s: %s", req.Method, req.URL, body)
	}
}

func TestHostVerdicts(t *testing.T) {
	h := testHosts()
	fast := wake{woken: []time.Duration{time.Millisecond, 900 * time.Millisecond}}
	slow := wake{woken: []time.Duration{time.Millisecond, time.Second}}
	for _, c := range []struct {
		wakes []wake
		want  string
	}{{[]wake{fast, slow, fast}, "pass"}, {[]wake{slow, fast, slow}, "**missed**"}} {
		r := h.wakeRow("a release", c.wakes)
		if r.verdict() != c.want {
			t.Errorf("%s: verdict %s, want %s", r.values[0], r.verdict(), c.want)
		}
	}
}
