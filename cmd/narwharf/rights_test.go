package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache"
	"narwharf/cache/stored"
	"narwharf/cmd/narwharf/server"
	"narwharf/hooks"
	"narwharf/hooks/alarm"
	"narwharf/hooks/api"
	wire "narwharf/hooks/api/alarm"
	"narwharf/hooks/api/retention"
	"narwharf/hooks/fleetlock"
	"narwharf/narinfo"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// meets says which credentials are enough for what docs/openapi.json says of an operation, in
// a request about the channel web and its host web-1. It knows nothing of package scope.
var meets = map[string]string{
	"pull":                                    "pull push promote:web promote:db promote:web/web-1 promote:web/web-1:test follow:web follow:db join:web join:db admin",
	"push":                                    "push admin",
	"promote:{channel}":                       "promote:web admin",
	"promote:{channel} or targets of it":      "promote:web promote:web/web-1 promote:web/web-1:test admin",
	"promote:{any channel}":                   "promote:web promote:db promote:web/web-1 promote:web/web-1:test admin",
	"read:{channel}":                          readers,
	"read:{channel of the host}":              readers,
	"read:{channel of the query, or any}":     readers,
	"read:{channel of the query, or *}":       readers,
	"operate:{channel}":                       operators,
	"operate:{channel of the host}":           operators,
	"operate:{channel of the alarm}":          operators,
	"operate":                                 "operate admin",
	"operate with ?dry_run=1":                 "", // which the requests do not say
	"follow:{channel of the query} as {host}": "follow:web admin",
	"follow:{channel of the body} as {host}":  "follow:web admin",
	"follow:{channel of the query, or of the host} as {host}": "follow:web admin",
	"join:{channel}": "join:web admin",
	"join:{channel of the body} or a proof in the body": "join:web admin",
	"operate:{any channel}":                             operators + " operate:db",
	"read:{any channel}":                                readers + " operate:db read:db promote:db",
	"reboot:{channel of the body}":                      "reboot:web admin",
	"metrics":                                           "metrics admin",
	"admin":                                             "admin",
}

const (
	operators = "operate operate:web operate:* admin"
	readers   = operators + " read:web read:* promote:web promote:web/web-1 promote:web/web-1:test"
)

var grants = strings.Fields("pull push promote:web promote:db promote:web/web-1 promote:web/web-1:test follow:web follow:db join:web join:db operate operate:web operate:db operate:* read:web read:db read:* reboot:web reboot:db metrics admin")

// matrix is a server that gives nothing to anybody, and tokens for it.
type matrix struct {
	*apiServer
	handler http.Handler
	config  string
	now     time.Time
	tokens  map[string]string // secrets by "state scope"
	alarm   string            // id of one of web
}

// nothing is a collector of a cache that has nothing.
type nothing struct{}

func (nothing) Plan(context.Context, bool) (*retention.Plan, error) { return new(retention.Plan), nil }
func (nothing) Collect(context.Context, bool, string) (*retention.Status, error) {
	return new(retention.Status), nil
}
func (nothing) Status(context.Context) (*retention.Status, error) { return new(retention.Status), nil }
func (nothing) Free() (int64, bool, error)                        { return 0, false, nil }
func (nothing) Why(context.Context, narinfo.Path) (*retention.Why, error) {
	return new(retention.Why), nil
}
func (nothing) Usage(context.Context, string) (*retention.Usage, error) {
	return new(retention.Usage), nil
}
func (nothing) Delete(context.Context, string, string) (*retention.Deleted, error) {
	return nil, api.Errorf(api.NotFound, "there is nothing")
}

func newMatrix(t *testing.T) *matrix {
	t.Helper()
	m := &matrix{apiServer: newAPIServer(t), now: time.Now(), tokens: make(map[string]string)}
	m.wantAPI(200, "PUT", "/api/v1/channels/:channel", "/api/v1/channels/web", m.promotion(1, nil), m.admin, `If-Match: "0"`)
	m.report(1)
	auth := access.NewAuthenticator(access.Options{Tokens: m.dir.Tokens})
	log := slog.New(slog.DiscardHandler)
	channels, err := hooks.New(hooks.Options{
		State: m.dir.State, Cache: m.cache, Files: stored.ChannelFiles{Store: m.cache.Uploads.Files}, Access: auth, Tokens: m.dir.Tokens,
		Log: log, Metrics: prometheus.NewRegistry(), Collector: nothing{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(channels.Stop)
	if err := channels.Retain.Note(t.Context(), api.Event{Kind: "channel.lost", Channel: "web", Alarm: true, Text: "an alarm of web"}); err != nil {
		t.Fatal(err)
	}
	everything := alarm.Caller{Sees: func(string) bool { return true }}
	list, err := channels.Alarms.List(t.Context(), wire.Query{}, everything)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	m.alarm = fmt.Sprint(list[0].ID)
	m.handler = server.Web(nil, http.NotFoundHandler(), channels, cache.NewServer(cache.Options{Cache: m.cache, Access: auth, BodyIdle: patience, Log: log}))
	m.config = filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(m.config, fmt.Appendf(nil, "data_dir = %q\n", m.dir.Config.DataDir), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := m.dir.ServeAdmin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(socket.Close)
	return m
}

// The states of a credential.
const (
	good      = "good"
	unknown   = "unknown"
	expired   = "expired"
	revoked   = "revoked"
	asOther   = "of another host"
	asItself  = "of the host"
	noneAtAll = "none"
)

// token is one of a scope in a state.
func (m *matrix) token(state, word string) string {
	m.t.Helper()
	if secret := m.tokens[state+" "+word]; secret != "" {
		return secret
	}
	host := map[string]string{asOther: "web-2", asItself: "web-1"}[state]
	created, expires := m.now.Add(-2*time.Hour), time.Time{}
	if state == expired {
		expires = m.now.Add(-time.Hour)
	}
	name := fmt.Sprintf("t%d", len(m.tokens))
	var secret string
	var token access.Token
	var err error
	if channel, join := strings.CutPrefix(word, "join:"); join {
		if expires.IsZero() {
			expires = m.now.Add(time.Hour)
		}
		secret, token, err = access.NewJoin(name, channel, host, 1, created, expires)
	} else {
		var set scope.Set
		if set, err = scope.ParseSet([]string{word}); err == nil {
			secret, token, err = access.New(name, host, set, created, expires)
		}
	}
	if err == nil && state != unknown {
		err = m.dir.Tokens.Add(m.t.Context(), token)
	}
	if err == nil && state == revoked {
		_, err = m.dir.Tokens.Revoke(m.t.Context(), name, m.now)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.tokens[state+" "+word] = secret
	return secret
}

// target is one operation, and a request for it that is about web and web-1.
type target struct {
	name, method, path, body string
	needs                    []string // as the document has them; none: public
}

// targets are all operations of both tables.
func (m *matrix) targets() (list []target) {
	m.t.Helper()
	add := func(name, method, pattern, path, body string) {
		c := m.doc.call(m.t, method, pattern)
		if c == nil {
			m.t.Fatalf("docs/openapi.json lacks %s %s", method, pattern)
		}
		needs := c.Scopes
		if c.Scope != "" {
			needs = append(needs, c.Scope)
		}
		list = append(list, target{name, method, path, body, needs})
	}
	hash, store := m.path.Path.Hash(), m.path.Path.Hash()+"-"+m.path.Path.Name()
	param := strings.NewReplacer(":channel", "web", ":host", "web-1", ":seq", "1", ":digest", m.manifest().Digest().Hex(), ":pin", "p", ":name", "n", ":system", "s", ":alarm", m.alarm, ":target", "ops", ":check", "smoke", ":id", "m1", ":path", strings.Repeat("0", 32))
	for _, r := range hooks.Routes() {
		body := "{}"
		switch r.Name {
		case "status":
			body = m.status(1, nil)
		case "pre-reboot", "steady-state":
			body = `{"client_params":{"id":"m1","group":"web"}}`
		case "join":
			body = `{"channel":"web","host":"web-9","instance":"` + strings.Repeat("a", 32) + `"}`
		}
		if r.Method == http.MethodGet || r.Method == http.MethodDelete || r.Name == "gc-post" {
			body = ""
		}
		add(r.Name, r.Method, r.Pattern, param.Replace(r.Pattern)+"?channel=web&attempt=x&path="+store, body)
		if r.Method == http.MethodGet {
			add(r.Name, http.MethodHead, r.Pattern, param.Replace(r.Pattern)+"?channel=web&path="+store, "")
		}
	}
	names := map[string]string{
		"narinfo": "/" + hash + ".narinfo", "ls": "/" + hash + ".ls", "nar": "/" + m.path.URL, "log": "/log/" + store, "debuginfo": "/debuginfo/abcdef0123",
		"packed-nar": "/nar/" + hash + "-" + m.path.NarHash.Base32() + ".nar.zst", "plain-nar": "/nar/" + hash + "-" + m.path.NarHash.Base32() + ".nar",
		"realisation": "/realisations/sha256:" + strings.Repeat("ab", 32) + "!out.doi", "build-trace": "/build-trace-v2/" + store + "/out.doi", "serve": "/serve/" + hash + "/",
	}
	for _, r := range cache.Routes {
		path := names[r.Name]
		if path == "" {
			path = r.Pattern
		}
		pattern := "" // as the document writes it
		for p := range m.doc.Paths {
			if shape(p) == shape(r.Pattern)+r.Suffix {
				pattern = p
			}
		}
		add(r.Name, http.MethodGet, pattern, path, "")
		add(r.Name, http.MethodHead, pattern, path, "")
		if r.Write != nil {
			add(r.Name, http.MethodPut, pattern, path, "x")
		}
	}
	return list
}

// ask returns the status, and what a denial says; "" for every other answer.
func (m *matrix) ask(g target, token string) (status int, denial string) {
	m.t.Helper()
	req := httptest.NewRequest(g.method, g.path, strings.NewReader(g.body))
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Host = "127.0.0.1"
	req.Header.Set(fleetlock.Header, "true")
	rec := httptest.NewRecorder()
	m.handler.ServeHTTP(rec, req)
	if g.name == "host-delete" && rec.Code == 204 {
		m.report(1)
	}
	text := rec.Body.String()
	if rec.Code != 401 && rec.Code != 403 {
		return rec.Code, ""
	}
	if (g.method != http.MethodHead || len(g.needs) == 0) && !strings.Contains(text, "this needs ") && !strings.Contains(text, "cannot act as") {
		return rec.Code, "" // of a join token that is none, of who asks for his own and is nobody, and the like
	}
	return rec.Code, text + " "
}

// allowed is whether a credential is enough by the document alone.
func (g target) allowed(t *testing.T, state, word string) bool {
	t.Helper()
	if len(g.needs) == 0 {
		return true
	}
	for _, need := range g.needs {
		words, ok := meets[need]
		if !ok {
			t.Fatalf("%s %s needs %q, of which this test knows nothing", g.method, g.path, need)
		}
		switch {
		case state != good && state != asOther && state != asItself:
		case state == asOther && strings.HasSuffix(need, " as {host}"):
		case slices.Contains(strings.Fields(words), word):
			return true
		}
	}
	return false
}

// TestMatrix asks every operation with every scope in every state, and compares what comes of it
// with docs/openapi.json.
func TestMatrix(t *testing.T) {
	m := newMatrix(t)
	asked := 0
	for _, g := range m.targets() {
		for _, state := range []string{noneAtAll, good, unknown, expired, revoked, asOther, asItself} {
			for _, word := range grants {
				secret := ""
				if state != noneAtAll {
					secret = m.token(state, word)
				}
				want := g.allowed(t, state, word)
				status, denial := m.ask(g, secret)
				asked++
				switch {
				case want && denial != "":
					t.Errorf("%s %s with %s, %s: %d %s", g.method, g.path, word, state, status, denial)
				case !want && denial == "":
					t.Errorf("%s %s with %s, %s is answered: %d", g.method, g.path, word, state, status)
				case !want && (status == 403) != (state == good || state == asOther || state == asItself):
					t.Errorf("%s %s with %s, %s: %d", g.method, g.path, word, state, status)
				}
				if state == noneAtAll {
					break // whatever the scope would be
				}
			}
		}
	}
	t.Logf("%d requests", asked)
}

var commandLine = regexp.MustCompile(`narwharf (token new .*?)(?:, (?:then|for) .*)?\n? *$`)

// TestDenialOfAnotherHost types what a host is told that uses the token of another.
func TestDenialOfAnotherHost(t *testing.T) {
	m := newMatrix(t)
	for _, g := range m.targets() {
		if g.method == http.MethodHead || !slices.ContainsFunc(g.needs, func(n string) bool { return strings.HasSuffix(n, " as {host}") }) {
			continue
		}
		_, denial := m.ask(g, m.token(asOther, "follow:web"))
		line := regexp.MustCompile(`narwharf (token new --join web --host web-1)`).FindStringSubmatch(denial)
		if line == nil {
			t.Fatalf("%s %s: nothing to type in %q", g.method, g.path, denial)
		}
		var out, stderr bytes.Buffer
		if code := run(append(strings.Fields(line[1]), "--config", m.config), strings.NewReader(""), &out, &stderr); code != 0 || !access.IsJoin(out.String()) {
			t.Errorf("narwharf %s: exit %d: %s", line[1], code, &stderr)
		}
	}
}

// TestDenialsSayWhatToType types what denials say, and asks again with what comes of it.
func TestDenialsSayWhatToType(t *testing.T) {
	m := newMatrix(t)
	t.Chdir(t.TempDir())
	typed := make(map[string]bool)
	for _, g := range m.targets() {
		for _, word := range []string{"pull", "metrics", "follow:db", "read:db"} {
			_, denial := m.ask(g, m.token(good, word))
			if denial == "" || g.method == http.MethodHead {
				continue
			}
			if strings.HasPrefix(denial, "{") { // of the API
				denial = regexp.MustCompile(`"(?:message|value)":"((?:[^"\\]|\\.)*)"`).FindStringSubmatch(denial)[1]
			}
			line := commandLine.FindStringSubmatch(denial)
			if line == nil {
				t.Errorf("%s %s with %s: nothing to type in %q", g.method, g.path, word, denial)
				continue
			}
			if !strings.HasPrefix(denial, "this needs ") {
				t.Errorf("%s %s with %s: %q", g.method, g.path, word, denial)
			}
			at := line[1] + " for " + g.method + " " + g.path
			if typed[at] {
				continue
			}
			typed[at] = true
			var args []string
			for arg := range strings.FieldsSeq(line[1]) {
				args = append(args, strings.Trim(arg, "'"))
			}
			name := ""
			if i := slices.Index(args, "--out"); i >= 0 {
				name = args[i+1]
			}
			if i := slices.Index(args, "--name"); i >= 0 && typed[args[i+1]] {
				continue // it is there
			} else if i >= 0 {
				typed[args[i+1]] = true
			}
			var out, stderr bytes.Buffer
			if code := run(append(args, "--config", m.config), strings.NewReader(""), &out, &stderr); code != 0 {
				t.Errorf("narwharf %s: exit %d: %s", line[1], code, &stderr)
				continue
			}
			secret := strings.TrimSpace(out.String())
			if name != "" {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Error(err)
				}
				secret = strings.TrimSpace(string(text))
			}
			if status, denial := m.ask(g, secret); denial != "" {
				t.Errorf("%s %s after narwharf %s: %d %s", g.method, g.path, line[1], status, denial)
			}
		}
	}
	if len(typed) < 40 {
		t.Errorf("only %d were typed", len(typed))
	}
}
