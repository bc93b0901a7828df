package main

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/api"
)

// TestAddressBehindAProxy: the audit log has the address for which a trusted proxy asks, the one that
// limits count by, and nobody else's word for it.
func TestAddressBehindAProxy(t *testing.T) {
	m := newMatrix(t)
	ask := func(l net.Listener, dial func() (net.Conn, error), trusted ...netip.Prefix) (address string) {
		gate := limits.NewGate(limits.Options{Total: 10, PerAddress: 10, PerCredential: 10, Trusted: trusted, Log: slog.New(slog.DiscardHandler)})
		srv := httptest.NewUnstartedServer(gate.Requests(func(*http.Request) string { return "" }, m.handler))
		_ = srv.Listener.Close()
		srv.Listener, srv.Config.ConnContext = gate.Listener(l), gate.ConnContext
		srv.Start()
		defer srv.Close()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) { return dial() }}}
		do := func(path, body string) (status int) {
			req, err := http.NewRequest(http.MethodPatch, "http://127.0.0.1"+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+m.admin)
			req.Header.Set("X-Forwarded-For", "203.0.113.9, 192.0.2.7")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			return resp.StatusCode
		}
		if status := do("/api/v1/hosts/web-1", `{"hold":{"reason":"a test"}}`); status != 200 {
			t.Fatal(status)
		}
		for _, e := range m.events() {
			if e.Kind == "host.held" && e.Actor != nil {
				address = e.Actor.Address
			}
		}
		return address
	}
	tcp := func() (net.Listener, func() (net.Conn, error)) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }
	}
	l, dial := tcp()
	if got := ask(l, dial); got != "127.0.0.1" {
		t.Errorf("from a stranger: %q", got)
	}
	l, dial = tcp()
	if got := ask(l, dial, netip.MustParsePrefix("127.0.0.0/8")); got != "192.0.2.7" {
		t.Errorf("by a proxy: %q", got)
	}
	l, dial = tcp()
	if got := ask(l, dial, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")); got != "203.0.113.9" {
		t.Errorf("by two proxies: %q", got)
	}
	name := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(l, func() (net.Conn, error) { return net.DialTimeout("unix", name, time.Second) }); got != "192.0.2.7" {
		t.Errorf("by a proxy at a unix socket: %q", got)
	}
}

// events are those that the audit log has.
func (m *matrix) events() []api.Event {
	m.t.Helper()
	var list struct{ Events []api.Event }
	rec := httptest.NewRecorder()
	req := httptest.NewRequest("GET", "/api/v1/events", http.NoBody)
	req.Header.Set("Authorization", "Bearer "+m.admin)
	m.handler.ServeHTTP(rec, req)
	if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil {
		m.t.Fatal(err)
	}
	return list.Events
}
