package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"narwharf/signing/access"
	"narwharf/signing/access/oidc/oidctest"
)

const (
	jwks      = "/api/actions/jwks"
	discovery = "/api/actions/.well-known/openid-configuration"
)

// away has the issuer answer nothing that helps while it is true.
func (s *site) away() *atomic.Bool {
	away := new(atomic.Bool)
	s.issuer.Serve(func(own http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if away.Load() {
				http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
				return
			}
			own.ServeHTTP(w, req)
		})
	})
	return away
}

// A server starts while an issuer is away. Its JWTs are nobody's fault then, and it is not asked again at once.
func TestAwayAtStart(t *testing.T) {
	s := newSite(t)
	away := s.away()
	away.Store(true)
	jwt := func() string {
		return s.issuer.Token(good(map[string]any{"exp": s.clock.Now().Add(time.Hour).Unix()}))
	}
	for range 5 {
		if _, err := s.Verify(t.Context(), jwt()); !errors.Is(err, access.ErrUnchecked) {
			t.Fatalf("while it is away: %v", err)
		}
	}
	if n := s.issuer.Asked(discovery); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	s.clock.add(fetchPause)
	s.wantReason(t, "still away", jwt(), "unchecked")
	if n := s.alarms.Load(); n != 1 {
		t.Errorf("%d alarms", n)
	}
	away.Store(false)
	s.clock.add(fetchPause - time.Second)
	s.wantReason(t, "too early", jwt(), "unchecked")
	s.clock.add(2 * time.Second)
	s.wantReason(t, "when it is back", jwt(), "")
	if n := s.metric(t, "narwharf_oidc_fetch_failures_total", "forge"); n != 2 {
		t.Errorf("%v failures", n)
	}
}

// Keys count for a day while their issuer is away.
func TestAwayLater(t *testing.T) {
	s := newSite(t)
	away := s.away()
	jwt := func() string {
		return s.issuer.Token(good(map[string]any{"exp": s.clock.Now().Add(time.Hour).Unix(), "jti": s.clock.Now().String()}))
	}
	s.wantReason(t, "at first", jwt(), "")
	away.Store(true)
	s.clock.add(keysLast - time.Minute)
	s.wantReason(t, "after almost a day", jwt(), "")
	s.settle()
	s.clock.add(2 * time.Minute)
	s.wantReason(t, "after a day", jwt(), "unchecked")
	away.Store(false)
	s.clock.add(fetchPause)
	s.wantReason(t, "when it is back", jwt(), "")
}

// settle waits for what is asked in the background.
func (s *site) settle() {
	s.Issuer("forge").keys.work.Wait()
}

func TestRotation(t *testing.T) {
	s := newSite(t)
	old := s.issuer.Token(good())
	s.wantReason(t, "by the old keys", old, "")
	other := s.issuer.Token(good(map[string]any{"jti": "other"}))
	s.issuer.Rotate()
	s.clock.add(fetchPause)
	s.wantReason(t, "by the new keys", s.issuer.Token(good()), "")
	s.wantReason(t, "by the old keys, seen for the first time", other, "key")
	s.wantReason(t, "by the old keys, from memory", old, "")
	s.clock.add(fetchPause)
	s.wantReason(t, "by the old keys, asked again", other, "key")
}

// A key that is taken away ends within an hour or so, although nobody asks for an unknown one.
func TestWithdrawnKey(t *testing.T) {
	s := newSite(t)
	long := map[string]any{"exp": s.clock.Now().Add(10 * time.Hour).Unix()}
	s.wantReason(t, "at first", s.issuer.Token(good(long)), "")
	stolen := s.issuer.Token(good(long, map[string]any{"jti": "stolen"}))
	s.issuer.Rotate()
	s.clock.add(fetchAgain + time.Second)
	s.wantReason(t, "the first after an hour", stolen, "") // and others are asked for meanwhile
	s.settle()
	s.wantReason(t, "another", s.issuer.Sign(oidctest.ES256, map[string]any{"kid": "key-2-ES256"}, good(long)), "key")
	s.clock.add(knownLast + time.Second)
	s.wantReason(t, "what was in memory", stolen, "key")
}

// Strangers who send keys that nobody knows make no more than a question in half a minute, and take the
// place of nobody.
func TestUnknownKeyFlood(t *testing.T) {
	s := newSite(t)
	for i := range 500 {
		s.wantReason(t, "a stranger's", s.issuer.Sign(oidctest.ES256, map[string]any{"kid": fmt.Sprint("x", i)}, good()), "key")
	}
	if n := s.issuer.Asked(jwks); n != 1 {
		t.Errorf("the keys were asked for %d times", n)
	}
	s.wantReason(t, "meanwhile", s.issuer.Token(good()), "")
	s.clock.add(fetchPause)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			_, err := s.Verify(t.Context(), s.issuer.Sign(oidctest.ES256, map[string]any{"kid": fmt.Sprint("y", i)}, good()))
			if reasonOf(err) != "key" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.issuer.Asked(jwks); n != 2 {
		t.Errorf("the keys were asked for %d times", n)
	}
}

// Few wait for an issuer that does not answer, and the others hear it at once.
func TestWaiters(t *testing.T) {
	s := newSite(t)
	goOn := make(chan struct{})
	s.issuer.Serve(func(own http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			<-goOn
			own.ServeHTTP(w, req)
		})
	})
	jwt := s.issuer.Token(good())
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range maxWaiting {
		waiting.Go(func() {
			if _, err := s.Verify(ctx, jwt); !errors.Is(err, access.ErrUnchecked) {
				t.Errorf("one that was given up: %v", err)
			}
		})
	}
	keys := s.Issuer("forge").keys
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		keys.mu.Lock()
		n := keys.waiting
		keys.mu.Unlock()
		if n == maxWaiting {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d wait", n)
		}
	}
	if _, err := s.Verify(t.Context(), jwt); !errors.Is(err, access.ErrUnchecked) || !strings.Contains(err.Error(), "others wait") {
		t.Errorf("one more: %v", err)
	}
	cancel()
	waiting.Wait()
	close(goOn)
	s.wantReason(t, "when it answers", jwt, "")
	if n := s.issuer.Asked(discovery); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}

// serveKeys has the issuer answer for its keys what a test says.
func (s *site) serveKeys(h http.HandlerFunc) {
	s.issuer.Serve(func(own http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != jwks {
				own.ServeHTTP(w, req)
				return
			}
			h(w, req)
		})
	})
}

// padded is the issuer's JWKS, made as long as a test says by what is no key for us.
func padded(t *testing.T, is *oidctest.Issuer, length int) []byte {
	t.Helper()
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(is.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{`{"kty":"oct","k":"c2VjcmV0","kid":"key-2-ES256"}`, `{"kty":"new"}`, `7`, `{"kty":"RSA","n":"AQAB","e":"AQAB"}`} {
		set.Keys = append(set.Keys, json.RawMessage(other))
	}
	frame := `{"kty":"pad","x":"%s"}`
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	set.Keys = append(set.Keys, json.RawMessage(fmt.Sprintf(frame, strings.Repeat("a", length-len(text)-len(frame)+1))))
	if text, err = json.Marshal(set); err != nil || len(text) != length {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	return text
}

func TestLargeJWKS(t *testing.T) {
	for length, want := range map[int]string{maxDocument: "", maxDocument + 1: "unchecked"} {
		s := newSite(t)
		text := padded(t, s.issuer, length)
		s.serveKeys(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) })
		s.wantReason(t, fmt.Sprint(length), s.issuer.Token(good()), want)
	}
	// One without an end does not take more memory either.
	s := newSite(t)
	s.serveKeys(func(w http.ResponseWriter, req *http.Request) {
		for req.Context().Err() == nil {
			if _, err := w.Write([]byte(strings.Repeat(" ", 1<<16))); err != nil {
				return
			}
		}
	})
	s.wantReason(t, "without an end", s.issuer.Token(good()), "unchecked")
}

// What an issuer may answer that leads elsewhere, or to nothing.
func TestHostileIssuer(t *testing.T) {
	asked := new(atomic.Int64)
	elsewhere := oidctest.New(t, oidctest.Options{})
	elsewhere.Serve(func(own http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			asked.Add(1)
			own.ServeHTTP(w, req)
		})
	})
	doc := func(issuer, keys string) string {
		return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, keys)
	}
	for what, c := range map[string]struct {
		discovery func(s *site) string // "": its own
		keys      http.HandlerFunc
	}{
		"another issuer's document": {discovery: func(*site) string { return doc("https://other.example.org", elsewhere.URL+"/jwks") }},
		"keys by http": {discovery: func(s *site) string {
			return doc(s.issuer.URL, strings.Replace(s.issuer.URL, "https", "http", 1)+"/jwks")
		}},
		"keys in a file": {discovery: func(s *site) string { return doc(s.issuer.URL, "file:///etc/passwd") }},
		"no keys":        {discovery: func(s *site) string { return doc(s.issuer.URL, "") }},
		"no JSON":        {discovery: func(*site) string { return "<html>" }},
		"a redirect": {keys: func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, elsewhere.URL+"/jwks", http.StatusFound)
		}},
		"404":          {keys: http.NotFound},
		"an empty set": {keys: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) }},
		"a set of secrets": {keys: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`)
		}},
		"no set": {keys: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[]`) }},
	} {
		s := newSite(t)
		s.issuer.Serve(func(own http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				switch {
				case req.URL.Path == discovery && c.discovery != nil:
					w.Header().Set("Content-Type", "application/json")
					_, _ = io.WriteString(w, c.discovery(s))
				case req.URL.Path == jwks && c.keys != nil:
					c.keys(w, req)
				default:
					own.ServeHTTP(w, req)
				}
			})
		})
		s.wantReason(t, what, s.issuer.Token(good()), "unchecked")
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("another was asked %d times", n)
	}
}

// An issuer at a private address is asked only where that is configured, whatever its name is.
func TestPrivateAddress(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Private = false })
	_, err := s.Verify(t.Context(), s.issuer.Token(good()))
	if !errors.Is(err, access.ErrUnchecked) || !strings.Contains(err.Error(), "private_addresses") {
		t.Errorf("%v", err)
	}
	if n := s.issuer.Asked(discovery); n > 0 {
		t.Errorf("it was asked %d times", n)
	}
}

// Without a kid few keys are tried.
func TestManyKeysWithoutNames(t *testing.T) {
	s := newSite(t)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(s.issuer.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		for i := range maxTried {
			k.KeyID = fmt.Sprint("same-", i)
			set.Keys = append(set.Keys, k)
		}
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	s.serveKeys(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) })
	s.wantReason(t, "no kid", s.issuer.Sign(oidctest.ES256, map[string]any{"kid": nil}, good()), "key")
	s.wantReason(t, "a kid", s.issuer.Token(good()), "")
}

func BenchmarkVerify(b *testing.B) {
	s := newSite(b)
	known := s.issuer.Token(good())
	if _, err := s.Verify(b.Context(), known); err != nil {
		b.Fatal(err)
	}
	stranger := s.issuer.Sign(oidctest.ES256, map[string]any{"kid": "x"}, good())
	forged := known[:len(known)-4] + "AAAA"
	for name, jwt := range map[string]string{"known": known, "unknown key": stranger, "forged": forged, "garbage": "a.b.c"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _ = s.Verify(b.Context(), jwt)
			}
		})
	}
}
