package browser

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// site is an Authenticator behind the guard, and a token that may do everything.
func site(t *testing.T) (*access.Authenticator, string) {
	t.Helper()
	tokens, _, err := access.Open(t.Context(), memory.New(nil), "")
	if err != nil {
		t.Fatal(err)
	}
	secret, token, err := access.New("root", "", scope.Set{{Kind: scope.Admin}}, time.Now(), time.Time{})
	if err == nil {
		err = tokens.Add(t.Context(), token)
	}
	if err != nil {
		t.Fatal(err)
	}
	public := &url.URL{Scheme: "https", Host: "cache.example.org:8443", Path: "/nix"}
	everything := scope.Set{{Kind: scope.Admin}} // for anonymous, too
	return access.NewAuthenticator(access.Options{Tokens: tokens, Anonymous: everything, Guards: []access.Guard{Guard(public, []string{"Cache.LAN", "nix.internal."})}}), secret
}

func TestHosts(t *testing.T) {
	auth, secret := site(t)
	operate, pull := scope.Scope{Kind: scope.Operate}, scope.Scope{Kind: scope.Pull}
	for host, ours := range map[string]bool{
		"127.0.0.1:8080": true, "10.0.0.7": true, "[::1]:8080": true, "[::1]": true, "[fe80::1%25eth0]:80": true,
		"localhost": true, "localhost:8080": true, "LOCALHOST.:1": true,
		"cache.example.org": true, "cache.example.org:8443": true, "CACHE.example.org.": true, "cache.example.org:80": true,
		"cache.lan": true, "cache.lan:8080": true, "nix.internal": true,

		"":             false, // of HTTP/1.0
		"evil.example": false, "evil.example:8080": false, "localhost.evil.example": false, "evil.localhost": false,
		"127.0.0.1.evil.example": false, "127.1": false, "0x7f.1": false, "2130706433": false, "x.cache.example.org": false,
		"cache.example.org.evil.example": false, "[::1": false, "cache.lan@evil.example": false,
	} {
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"} {
			r := httptest.NewRequest(method, "/", http.NoBody)
			r.Host = host
			if d := auth.Identify(r).Deny(operate); (d == nil) != ours {
				t.Errorf("%s at %q: %v", method, host, d)
			} else if d != nil && (d.Status != http.StatusMisdirectedRequest || !strings.Contains(d.Error(), "hosts in [access]")) {
				t.Errorf("%s at %q: %d %v", method, host, d.Status, d)
			}
			if d := auth.Identify(r).Deny(pull); d != nil {
				t.Errorf("%s at %q, to pull: %v", method, host, d)
			}
			if d := auth.Identify(r).DenyAs(scope.Scope{Kind: scope.Follow, Glob: "web"}, "web-1"); (d == nil) != ours {
				t.Errorf("%s at %q as a host: %v", method, host, d)
			}
			// A page may add what is no token; anonymous may operate here.
			for _, none := range []string{"x", "Bearer nwf_x", "Basic eDp5", "Basic Og==", "Negotiate x", "Bearer " + secret + "x"} {
				r.Header["Authorization"] = []string{none}
				if d := auth.Identify(r).Deny(operate); (d == nil) != ours || d != nil && d.Status != http.StatusMisdirectedRequest {
					t.Errorf("%s at %q with %q: %v", method, host, none, d)
				}
				if d := auth.Identify(r).Deny(pull); d != nil {
					t.Errorf("%s at %q with %q, to pull: %v", method, host, none, d)
				}
			}
			r.Header["Authorization"] = []string{"Bearer " + secret, "Bearer " + secret}
			if d := auth.Identify(r).Deny(operate); (d == nil) != ours {
				t.Errorf("%s at %q with two tokens: %v", method, host, d)
			}
			r.Header.Set("Authorization", "Bearer "+secret)
			if d := auth.Identify(r).Deny(operate); d != nil {
				t.Errorf("%s at %q with a token: %v", method, host, d)
			}
		}
	}
}

func TestOrigins(t *testing.T) {
	auth, secret := site(t)
	operate, pull := scope.Scope{Kind: scope.Operate}, scope.Scope{Kind: scope.Pull}
	for _, c := range []struct {
		name   string
		header map[string]string
		host   string
		ours   bool
	}{
		{"a program", nil, "127.0.0.1:8080", true},
		{"our page", map[string]string{"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}, "127.0.0.1:8080", true},
		{"typed", map[string]string{"Sec-Fetch-Site": "none"}, "127.0.0.1:8080", true},
		{"our page, older browser", map[string]string{"Origin": "http://127.0.0.1:8080"}, "127.0.0.1:8080", true},
		{"our page behind a proxy that has another Host", map[string]string{"Origin": "https://cache.example.org:8443", "Sec-Fetch-Site": "same-site"}, "127.0.0.1:8080", true},
		{"foreign", map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, "127.0.0.1:8080", false},
		{"foreign, older browser", map[string]string{"Origin": "https://evil.example"}, "127.0.0.1:8080", false},
		{"foreign, says no origin", map[string]string{"Sec-Fetch-Site": "cross-site"}, "127.0.0.1:8080", false},
		{"another of the same site", map[string]string{"Origin": "https://other.example.org", "Sec-Fetch-Site": "same-site"}, "cache.example.org", false},
		{"another port", map[string]string{"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"}, "127.0.0.1:8080", false},
		{"a sandbox, or a file", map[string]string{"Origin": "null"}, "127.0.0.1:8080", false},
		{"public_url without TLS", map[string]string{"Origin": "http://cache.example.org:8443", "Sec-Fetch-Site": "cross-site"}, "cache.example.org:8443", false},
	} {
		for _, method := range []string{"PUT", "POST", "PATCH", "DELETE"} {
			r := httptest.NewRequest(method, "/api/v1/hosts/web-1/approve", http.NoBody)
			r.Host = c.host
			r.SetBasicAuth("op", secret) // which browsers send by themselves
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			if d := auth.Identify(r).Deny(operate); (d == nil) != c.ours || d != nil && d.Status != http.StatusForbidden {
				t.Errorf("%s, %s: %v", c.name, method, d)
			}
			r.Method = "GET"
			if d := auth.Identify(r).Deny(operate); d != nil {
				t.Errorf("%s, GET: %v", c.name, d)
			}
			if d := auth.Identify(r).Deny(pull); d != nil {
				t.Errorf("%s, to pull: %v", c.name, d)
			}
		}
	}
	if d := Guard(nil, nil)(&http.Request{Host: "x"}, false); d == nil || d.Status != http.StatusMisdirectedRequest {
		t.Errorf("a server without names: %v", d)
	}
}
