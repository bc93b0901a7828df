package relay

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"narwharf/signing"
)

// TestAsksNobodyElse: a cache sends the host nowhere but to itself and where its configuration
// lets it, and no token goes along.
func TestAsksNobodyElse(t *testing.T) {
	body := random(5000)
	l := line("a", body)
	for _, c := range []struct {
		name string
		to   string // X is the other host
		in   string // "url", "redirect", or "narinfo"
		list []string
		ok   bool
		auth bool // the cache's own token comes along
	}{
		{name: "itself", to: "nar/x", in: "url", ok: true, auth: true},
		{name: "itself, whole", to: "SELF/nar/x", in: "url", ok: true, auth: true},
		{name: "itself, from the root", to: "/nar/x", in: "url", ok: true, auth: true},
		{name: "itself, by a redirect", to: "/nar/x", in: "redirect", ok: true, auth: true},
		{name: "itself, for the narinfo", to: "/other.narinfo", in: "narinfo", ok: true, auth: true},
		{name: "another port", to: "http://X/nar/x", in: "url"},
		{name: "without a scheme", to: "//X/nar/x", in: "url"},
		{name: "with a user", to: "http://127.0.0.1@X/nar/x", in: "url"},
		{name: "a file", to: "file:///etc/passwd", in: "url"},
		{name: "a redirect", to: "http://X/nar/x", in: "redirect"},
		{name: "a redirect to a file", to: "file:///etc/passwd", in: "redirect"},
		{name: "a redirect of the narinfo", to: "http://X/other.narinfo", in: "narinfo", list: []string{"X", "127.0.0.0/8"}},
		{name: "in circles", to: "/nar/a", in: "redirect"},
		{name: "another that is listed", to: "http://X/nar/x", in: "url", list: []string{"127.0.0.1"}, ok: true},
		{name: "a redirect to one that is listed", to: "http://X/nar/x", in: "redirect", list: []string{"127.0.0.0/8"}, ok: true},
		{name: "a name for a private address", to: "http://localhost:PORT/nar/x", in: "redirect", list: []string{"localhost:PORT"}},
		{name: "a name for a private address that is listed", to: "http://localhost:PORT/nar/x", in: "redirect", list: []string{"localhost:PORT", "127.0.0.0/8", "::1"}, ok: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, other := newHostile(t), newHostile(t)
			x := strings.TrimPrefix(other.URL, "http://")
			_, port, _ := net.SplitHostPort(x)
			fill := strings.NewReplacer("SELF", h.URL, "X", x, "PORT", port)
			to := fill.Replace(c.to)
			for i := range c.list {
				c.list[i] = fill.Replace(c.list[i])
			}
			good := info(l, "nar/a", "none")
			h.serve["/nar/x"], other.serve["/nar/x"], h.serve["/other.narinfo"], other.serve["/other.narinfo"] = file(body), file(body), text(good), text(good)
			at := "/" + l.Path.Hash() + ".narinfo"
			redirect := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Location", to); w.WriteHeader(302) }
			switch c.in {
			case "url":
				h.serve[at] = text(info(l, to, "none"))
			case "redirect":
				h.serve[at], h.serve["/nar/a"] = text(good), redirect
			case "narinfo":
				h.serve[at], h.serve["/nar/a"] = redirect, file(body)
			}
			own := h.cache(t, "")
			own.Token = "nwt_secret"
			r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{own}, Hosts: c.list})
			status, got, err := fetch(t, r.URL+"/nar/"+l.Path.Hash()+".nar")
			if ok := status == 200 && err == nil && bytes.Equal(got, body); ok != c.ok {
				t.Errorf("%d, %d bytes, %v (%v)", status, len(got), err, r.Why(errors.New("x")))
			}
			for _, asked := range other.requests() {
				if !c.ok || strings.Contains(asked, "Basic") {
					t.Errorf("the other host was asked %q", asked)
				}
			}
			for _, asked := range h.requests() {
				if !strings.HasSuffix(asked, "Basic bmFyd2hhcmY6bnd0X3NlY3JldA==") {
					t.Errorf("the cache was asked %q", asked)
				}
			}
			if !c.ok && !strings.Contains(r.Why(errors.New("x")).Error(), "no cache has it") && !strings.Contains(r.Why(errors.New("x")).Error(), "private") {
				t.Errorf("the reason is %v", r.Why(errors.New("x")))
			}
		})
	}
}
