package check

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each mistake in a section is said in words.
func TestRefusals(t *testing.T) {
	prom := Spec{Name: "p", Prometheus: "http://prom:9090", Query: "up", Bound: "== 1"}
	with := func(change func(*Spec)) Spec {
		s := prom
		change(&s)
		return s
	}
	for words, s := range map[string]Spec{
		"name \"\" is not 1 to 64":        {},
		"give one of prometheus":          {Name: "a"},
		"it has prometheus and url":       with(func(s *Spec) { s.URL = "http://x" }),
		"query, bound and no_data are of": {Name: "a", URL: "http://x", Bound: "< 1"},
		"is not like http://host":         {Name: "a", URL: "ftp://x"},
		"user or password":                {Name: "a", URL: "http://me:secret@x"},
		"query is missing":                with(func(s *Spec) { s.Query = " " }),
		"bound is missing":                with(func(s *Spec) { s.Bound = "" }),
		"leave out /api/v1":               with(func(s *Spec) { s.Prometheus = "http://x/api/v1/query" }),
		`is not like "< 0.01"`:            with(func(s *Spec) { s.Bound = "= 1" }),
		`bound "< NaN"`:                   with(func(s *Spec) { s.Bound = "< NaN" }),
		`bound "< 5%"`:                    with(func(s *Spec) { s.Bound = "< 5%" }),
		"no_data \"ok\" is none of":       with(func(s *Spec) { s.NoData = "ok" }),
		"interval 100ms is not":           with(func(s *Spec) { s.Interval = 100 * time.Millisecond }),
		"timeout 2h0m0s":                  with(func(s *Spec) { s.Timeout = 2 * time.Hour }),
		"failures 101":                    with(func(s *Spec) { s.Failures = 101 }),
		"with its whole path":             {Name: "a", Command: []string{"true"}},
		"a command reads its own":         {Name: "a", Command: []string{"/bin/true"}, TokenFile: "/x"},
	} {
		if _, err := New(s); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: %v, want words with %q", s, err, words)
		}
	}
	if _, err := NewSet([]Spec{prom, prom}); err == nil || !strings.Contains(err.Error(), "another has that name") {
		t.Errorf("two of a name: %v", err)
	}
	set, err := NewSet([]Spec{prom})
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Unknown([]string{"p", "q"}); err == nil || !strings.Contains(err.Error(), `"q" is not in this server's configuration: it has p`) {
		t.Errorf("an unknown name: %v", err)
	}
	if err := (*Set)(nil).Unknown([]string{"q"}); err == nil || !strings.Contains(err.Error(), "it has none") {
		t.Errorf("without checks: %v", err)
	}
	if err := set.Unknown([]string{"p"}); err != nil {
		t.Error(err)
	}
}

// What each answer of Prometheus means.
func TestPrometheus(t *testing.T) {
	vector := func(values ...string) string {
		var list []string
		for i, v := range values {
			list = append(list, fmt.Sprintf(`{"metric":{"i":"%d"},"value":[1.5,%q]}`, i, v))
		}
		return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(list, ",") + `]}}`
	}
	for _, c := range []struct {
		name, body string
		status     int
		noData     Said
		said       Said
		words      string
	}{
		{name: "one series", body: vector("0.004"), said: Yes, words: "0.004 is < 0.01"},
		{name: "one that is not", body: vector("0.5"), said: No, words: `0.5 {i="0"} is not < 0.01`},
		{name: "several", body: vector("0", "0.009", "0.001"), said: Yes, words: "all 3 series are < 0.01, the nearest 0.009"},
		{name: "one of several is not", body: vector("0", "0.02", "0"), said: No, words: `one of 3 series: 0.02 {i="1"} is not < 0.01`},
		{name: "two of several are not", body: vector("1", "2", "0"), said: No, words: `2 of 3 series, the first of them: 1 {i="0"} is not`},
		{name: "scalar", body: `{"status":"success","data":{"resultType":"scalar","result":[1.5,"0.001"]}}`, said: Yes},
		{name: "no series", body: vector(), said: None, words: "the answer has no series"},
		{name: "no series, which is fine", body: vector(), noData: Yes, said: Yes, words: "a yes by no_data"},
		{name: "no series, which is not", body: vector(), noData: No, said: No, words: "a no by no_data"},
		{name: "NaN", body: vector("NaN"), said: None, words: "NaN {i=\"0\"} is no number"},
		{name: "NaN, which is fine", body: vector("NaN", "0"), noData: Yes, said: Yes},
		{name: "NaN beside one that is not", body: vector("NaN", "1"), noData: Yes, said: No, words: "one of 2 series: 1"},
		{name: "infinite", body: vector("+Inf"), said: No, words: "+Inf"},
		{name: "below all", body: vector("-Inf"), said: Yes},
		{name: "warnings", body: strings.Replace(vector("0"), "{", `{"warnings":["no store matched"],`, 1), said: None, words: "answered in part: no store matched"},
		{name: "warnings, and one is not", body: strings.Replace(vector("1"), "{", `{"warnings":["no store matched"],`, 1), said: No},
		{name: "infos", body: strings.Replace(vector("0"), "{", `{"infos":["metric might not be a counter"],`, 1), said: Yes},
		{name: "matrix", body: `{"status":"success","data":{"resultType":"matrix","result":[]}}`, said: None, words: "the query gives a matrix"},
		{name: "histogram", body: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}`, said: None, words: "native histogram"},
		{name: "a bad query", status: 400, body: `{"status":"error","errorType":"bad_data","error":"parse error: unexpected end"}`, said: None, words: "400 Bad Request: parse error"},
		{name: "overloaded", status: 503, body: `{"status":"error","errorType":"timeout","error":"query timed out"}`, said: None, words: "query timed out"},
		{name: "a login page", body: "<html>\nSign in", said: None, words: "no answer of Prometheus: <html> Sign in"},
		{name: "no body", status: 502, said: None, words: "502 Bad Gateway"},
		{name: "cut", body: vector("0")[:30], said: None},
		{name: "no number", body: vector("much"), said: None, words: "much"},
		{name: "too large", body: strings.Repeat(" ", maxAnswer) + vector("0"), said: None, words: "more than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path != "/prom/api/v1/query" || req.FormValue("query") != `rate(x[5m])` || req.FormValue("timeout") != "10" || req.Header.Get("Authorization") != "Bearer sesame" {
					t.Errorf("asked %s %v, %q", req.URL, req.Form, req.Header.Get("Authorization"))
				}
				w.WriteHeader(max(c.status, 200))
				_, _ = fmt.Fprint(w, c.body)
			}))
			defer srv.Close()
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte("sesame\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			check := mustNew(t, Spec{Name: "p", Prometheus: srv.URL + "/prom/", Query: "rate(x[5m])", Bound: "< 0.01", NoData: string(c.noData), TokenFile: token})
			a := check.Ask(t.Context(), &About{})
			if a.Said != c.said || !strings.Contains(a.Detail, c.words) || len(a.Detail) > MaxDetail {
				t.Errorf("%s: %s; want %s with %q", a.Said, a.Detail, c.said, c.words)
			}
		})
	}
}

func mustNew(t *testing.T, s Spec) *Check {
	t.Helper()
	c, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBound(t *testing.T) {
	for text, keeps := range map[string][3]bool{ // of 0, 1, 2
		"< 1": {true, false, false}, "<=1": {true, true, false}, "> 1": {false, false, true},
		">= 1": {false, true, true}, " == 1e0 ": {false, true, false}, "!= 1": {true, false, true}, "< +Inf": {true, true, true},
	} {
		b, err := parseBound(text)
		if err != nil {
			t.Error(err)
			continue
		}
		for v, want := range keeps {
			if b.keeps(float64(v)) != want {
				t.Errorf("%d %s: %v", v, text, !want)
			}
		}
	}
}

// What the answer of a URL means.
func TestPage(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it went elsewhere") }))
	defer other.Close()
	hold := make(chan struct{})
	mux := http.NewServeMux()
	status := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(n)
			_, _ = fmt.Fprint(w, "two\nlines\x1b[31m")
		}
	}
	mux.Handle("/ok", status(200))
	mux.Handle("/empty", status(204))
	mux.Handle("/down", status(503))
	mux.Handle("/none", status(404))
	mux.Handle("/here", http.RedirectHandler("/ok", http.StatusFound))
	mux.Handle("/there", http.RedirectHandler(other.URL+"/ok", http.StatusFound))
	mux.Handle("/circle", http.RedirectHandler("/circle", http.StatusFound))
	mux.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { <-hold })
	mux.HandleFunc("/slowbody", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(503)
		w.(http.Flusher).Flush()
		<-hold
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	defer close(hold)
	for path, want := range map[string]struct {
		said  Said
		words string
	}{
		"/ok": {Yes, "200 OK"}, "/empty": {Yes, "204 No Content"}, "/down": {No, "503 Service Unavailable: two lines�"}, "/none": {No, "404"},
		"/here": {Yes, "200"}, "/there": {No, "it redirects to " + other.URL}, "/circle": {No, "302 Found"}, "/slow": {No, "no answer in 200ms"}, "/slowbody": {No, "503"},
	} {
		c := mustNew(t, Spec{Name: "p", URL: srv.URL + path, Timeout: 200 * time.Millisecond})
		if a := c.Ask(t.Context(), &About{}); a.Said != want.said || !strings.Contains(a.Detail, want.words) {
			t.Errorf("%s: %s: %s", path, a.Said, a.Detail)
		}
	}
	gone := httptest.NewServer(mux)
	gone.Close()
	if a := mustNew(t, Spec{Name: "p", URL: gone.URL}).Ask(t.Context(), &About{}); a.Said != No || !strings.Contains(a.Detail, "refused") {
		t.Errorf("nobody there: %s: %s", a.Said, a.Detail)
	}
	if a := mustNew(t, Spec{Name: "p", Prometheus: gone.URL, Query: "x", Bound: "< 1"}).Ask(t.Context(), &About{}); a.Said != None {
		t.Errorf("no Prometheus there: %s: %s", a.Said, a.Detail)
	}
	if a := mustNew(t, Spec{Name: "p", Prometheus: srv.URL + "/slow", Query: "x", Bound: "< 1", TokenFile: "/nowhere"}).Ask(t.Context(), &About{}); a.Said != None || !strings.Contains(a.Detail, "token_file") {
		t.Errorf("no token: %s: %s", a.Said, a.Detail)
	}
}

// What the end of a command means, and what it is told.
func TestCommand(t *testing.T) {
	about := &About{Channel: "web", Seq: 7, Wave: 2, Paths: []string{"/nix/store/a-x", "/nix/store/b-y"}}
	pid := filepath.Join(t.TempDir(), "pid")
	t.Setenv("SECRET", "sesame")
	for script, want := range map[string]struct {
		said  Said
		words string
	}{
		"true":                                  {Yes, "exit status 0"},
		"echo fine; echo more >&2":              {Yes, "exit status 0: fine more"},
		"echo 'p99 is\t1.2 s'; exit 1":          {No, "exit status 1: p99 is 1.2 s"},
		"exit 75":                               {None, "exit status 75"},
		"kill -9 $$":                            {None, "signal: killed"},
		"sleep 60 & echo $! >" + pid + "; wait": {None, "it took longer than"},
		"sleep 60 & echo left":                  {Yes, "exit status 0: left"},
		`test -z "$SECRET" && echo $NARWHARF_CHECK $NARWHARF_CHANNEL $NARWHARF_SEQ $NARWHARF_WAVE "$NARWHARF_STORE_PATHS" $PWD; cat`: {Yes, "exit status 0: p web 7 2 /nix/store/a-x /nix/store/b-y / /nix/store/a-x /nix/store/b-y"},
		"head -c 1000000 /dev/zero | tr '\\0' x; echo end; exit 3":                                                                   {No, "xxxend"},
	} {
		c := mustNew(t, Spec{Name: "p", Command: []string{"/bin/sh", "-c", script}, Timeout: 5 * time.Second})
		if want.said == None && strings.Contains(script, "wait") {
			c.Timeout = 500 * time.Millisecond
		}
		a := c.Ask(t.Context(), about)
		if a.Said != want.said || !strings.Contains(a.Detail, want.words) || len(a.Detail) > MaxDetail {
			t.Errorf("%s: %s: %s", script, a.Said, a.Detail)
		}
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/self"); err == nil {
		for range 100 { // it is killed, and somebody reaps it soon
			state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
			if err != nil || strings.Contains(string(state), ") Z ") {
				text = nil
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if text != nil {
			t.Error("what a command started lives on after its timeout")
		}
	}
	if a := mustNew(t, Spec{Name: "p", Command: []string{"/nowhere/at/all"}}).Ask(t.Context(), about); a.Said != None || !strings.Contains(a.Detail, "it was not started") {
		t.Errorf("no program: %s: %s", a.Said, a.Detail)
	}
	many := &About{}
	for i := range 5000 {
		many.Paths = append(many.Paths, fmt.Sprintf("/nix/store/%050d", i))
	}
	c := mustNew(t, Spec{Name: "p", Command: []string{"/bin/sh", "-c", `test -z "${NARWHARF_STORE_PATHS+x}" && test $(wc -l) = 5000`}})
	if a := c.Ask(t.Context(), many); a.Said != Yes {
		t.Errorf("many paths: %s: %s", a.Said, a.Detail)
	}
}
