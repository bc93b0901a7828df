package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api/notify"
)

// attempt sends one event to a real server.
func attempt(t *testing.T, to string, change func(*Target)) *notify.Attempt {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	target := Target{Name: "ops", URL: u, Format: JSON, Private: true}
	if change != nil {
		change(&target)
	}
	s := New(Options{Targets: []Target{target}, Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	defer s.queues[0].client.CloseIdleConnections()
	a, err := s.Test(t.Context(), "ops", "hello", "op")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestRedirect: nobody else is asked, whatever the answer says.
func TestRedirect(t *testing.T) {
	asked := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	if a := attempt(t, srv.URL, nil); a.Status != 307 || !strings.Contains(a.Error, "redirects are not followed") || asked > 0 {
		t.Errorf("%+v, asked %d", a, asked)
	}
}

// TestPrivate: a name that leads into a private network is not followed, unless that is said.
func TestPrivate(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	name := strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)
	if a := attempt(t, name, func(t *Target) { t.Private = false }); a.Status != 0 || !strings.Contains(a.Error, "is a private address: say private_addresses = true") {
		t.Errorf("%+v", a)
	}
	if a := attempt(t, srv.URL, nil); a.Status != 0 || !strings.Contains(a.Error, "certificate") {
		t.Errorf("%+v", a)
	}
}

// TestAnswerIsCut: neither a large answer nor the URL is in what people see.
func TestAnswerIsCut(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(500)
		_, _ = w.Write(bytes.Repeat([]byte("x\x1b"), 1<<20)) // who cut it does not read it
	}))
	if a := attempt(t, srv.URL, nil); a.Status != 500 || len(a.Answer) > maxAnswer || strings.Contains(a.Answer, "\x1b") {
		t.Errorf("%+v", a)
	}
	srv.Close()
	if a := attempt(t, srv.URL+"/secret", nil); a.Status != 0 || a.Error == "" || strings.Contains(a.Error, "secret") {
		t.Errorf("%+v", a)
	}
}

// TestSnippet runs what docs/notify.md has for who verifies signatures.
func TestSnippet(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	doc, err := os.ReadFile("../../docs/notify.md")
	if err != nil {
		t.Fatal(err)
	}
	snippet := regexp.MustCompile("(?s)\n```python\n(.*?)```\n").FindSubmatch(doc)
	if snippet == nil {
		t.Fatal("docs/notify.md has no snippet")
	}
	one, two, other := "whsec_"+strings.Repeat("QUJD", 11), "whsec_"+strings.Repeat("REVG", 11), "whsec_"+strings.Repeat("R0hJ", 11)
	secrets, err := ParseSecrets("\n" + one + "\n" + two + "\n")
	if err != nil {
		t.Fatal(err)
	}
	var headers map[string]string
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		headers = make(map[string]string)
		for name := range req.Header {
			headers[strings.ToLower(name)] = req.Header.Get(name)
		}
		body, _ = io.ReadAll(req.Body) // what is missing does not verify
	}))
	defer srv.Close()
	if a := attempt(t, srv.URL, func(t *Target) { t.Secrets = secrets }); a.Error != "" {
		t.Fatalf("%+v", a)
	}
	verify := func(secret string, headers map[string]string, body string) string {
		t.Helper()
		input, err := json.Marshal([]any{secret, headers, body})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), python, "-c", string(snippet[1])+`
import json, sys
secret, headers, body = json.load(sys.stdin)
print(verify(secret, headers, body.encode()))`)
		cmd.Stdin = bytes.NewReader(input)
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	old := maps.Clone(headers)
	old["webhook-timestamp"] = "1700000000"
	for _, c := range []struct {
		secret  string
		headers map[string]string
		body    string
		want    string
	}{
		{one, headers, string(body), "True"},
		{two, headers, string(body), "True"},
		{other, headers, string(body), "False"},
		{one, headers, string(body) + " ", "False"},
		{one, old, string(body), "False"},
	} {
		if got := verify(c.secret, c.headers, c.body); got != c.want {
			t.Errorf("%s: %s, want %s", c.secret, got, c.want)
		}
	}
}

func TestParseSecrets(t *testing.T) {
	good := "whsec_" + strings.Repeat("QUJD", 11)
	for text, ok := range map[string]bool{
		good: true, good + "\n": true, good + "\r\n" + good: true, "": false, "\n": false, "secret": false, good[6:]: false,
		"whsec_QUJD": false, "whsec_" + strings.Repeat("QUJD", 30): false, good + "\n" + good + "\n" + good: false, "whsec_!": false,
	} {
		if _, err := ParseSecrets(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestSignature is the example of Standard Webhooks' specification.
func TestSignature(t *testing.T) {
	secrets, err := ParseSecrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := sign(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
