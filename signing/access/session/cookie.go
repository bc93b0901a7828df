package session

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Cookies are a server's. Browsers keep cookies by host and not by port, so that their names
// tell servers apart; by https they are __Host- ones, which nobody else can set. By http they
// are for who is on this machine, since everybody on the way could take them.
type Cookies struct {
	// Public is public_url, nil if there is none.
	Public *url.URL
}

// ErrNoTLS is why nobody can log in where the session could be taken on its way.
var ErrNoTLS = errors.New("logging in needs https, since over http everybody on the way could take the session: " +
	"set public_url to an https URL and let the server or a proxy speak TLS (docs/operating.md), or open http://localhost on the server's own machine")

// site is where a browser is.
type site struct {
	suffix string // of names
	secure bool
}

func (c Cookies) site(req *http.Request) (s site, err error) {
	base := c.Public
	if base == nil {
		base = &url.URL{Scheme: "http", Host: req.Host}
		if req.TLS != nil {
			base.Scheme = "https"
		}
	}
	sum := sha256.Sum256([]byte(strings.ToLower(base.String())))
	s = site{hex.EncodeToString(sum[:4]), base.Scheme == "https"}
	if !s.secure && !loopback(base.Hostname()) {
		return s, ErrNoTLS
	}
	return s, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func (s site) name(what string) string {
	if s.secure {
		return "__Host-narwharf-" + what + "-" + s.suffix
	}
	return "narwharf-" + what + "-" + s.suffix
}

// read is the value of a cookie, "" if there is none, or several: then one is somebody else's.
func (c Cookies) read(req *http.Request, what string) string {
	if req.Header["Cookie"] == nil {
		return ""
	}
	s, err := c.site(req)
	if err != nil {
		return ""
	}
	if found := req.CookiesNamed(s.name(what)); len(found) == 1 {
		return found[0].Value
	}
	return ""
}

// set sets a cookie, or deletes it if it has no value.
func (c Cookies) set(w http.ResponseWriter, req *http.Request, what, value string, life time.Duration) error {
	s, err := c.site(req)
	if err != nil {
		return err
	}
	cookie := &http.Cookie{Name: s.name(what), Value: value, Path: "/", HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode, MaxAge: int(life.Seconds())}
	if value == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
	return nil
}

// Possible says why nobody can log in by such a request, nil if that can be.
func (c Cookies) Possible(req *http.Request) error {
	_, err := c.site(req)
	return err
}

// Secret is the session that a browser shows, "" if it shows none. It is for access.Options.
func (c Cookies) Secret(req *http.Request) string { return c.read(req, "session") }

// Keep gives a browser a session. It forgets it when it is closed, and the server when it ends.
func (c Cookies) Keep(w http.ResponseWriter, req *http.Request, secret string) error {
	return c.set(w, req, "session", secret, 0)
}

// Drop has a browser forget its session.
func (c Cookies) Drop(w http.ResponseWriter, req *http.Request) error {
	return c.set(w, req, "session", "", 0)
}

// Remember has a browser keep a login on its way.
func (c Cookies) Remember(w http.ResponseWriter, req *http.Request, f Flow) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return c.set(w, req, "login", base64.RawURLEncoding.EncodeToString(text), flowLife)
}

// Recall is the login on its way that a browser has, which it forgets: each is finished once. It has no
// State if there is none.
func (c Cookies) Recall(w http.ResponseWriter, req *http.Request) (f Flow) {
	text, err := base64.RawURLEncoding.DecodeString(c.read(req, "login"))
	if err != nil || json.Unmarshal(text, &f) != nil {
		f = Flow{}
	}
	_ = c.set(w, req, "login", "", 0) // who cannot log in has none
	return f
}
