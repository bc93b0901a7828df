package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip/cliptest"
)

// fill sets every string in a value, and makes what is missing.
func fill(v reflect.Value, word string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(word)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), word)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), word)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, word)
		fill(value, word)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		if _, isTime := v.Interface().(time.Time); isTime {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				fill(f, word)
			}
		}
	}
}

func filled[T any](word string) (v T) {
	fill(reflect.ValueOf(&v).Elem(), word)
	return v
}

// liar is a server all of whose words are one.
func liar(word string) http.Handler {
	host := filled[api.Host](word)
	host.Status.Head = nil
	channel := filled[api.Channel](word)
	channel.Release = nil
	answers := map[string]any{
		"/api/v1/hosts": map[string]any{"hosts": []api.Host{host, host}}, "/api/v1/hosts/web-1": host,
		"/api/v1/channels": map[string]any{"channels": []api.Channel{channel, channel}}, "/api/v1/channels/web": channel,
		"/api/v1/channels/web/history": map[string]any{"channel": word, "history": []api.HistoryItem{filled[api.HistoryItem](word)}},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := answers[r.URL.Path]
		if r.URL.Path == "/api/v1/events" && r.URL.Query().Get("since") == "1" {
			v, ok = map[string]any{"events": []api.Event{filled[api.Event](word)}, "next": 7}, true
		}
		if !ok || r.Method != http.MethodGet {
			e := filled[api.Error](word)
			e.Kind, e.RetryAfter, v = api.Forbidden, 0, &e
			w.WriteHeader(http.StatusForbidden)
		}
		_ = json.NewEncoder(w).Encode(v)
	})
}

// TestWordsOfOthers: whatever hosts, servers and releases say, nothing of it is obeyed by a
// terminal, stands for a row of its own, or fills the screen.
func TestWordsOfOthers(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for name, word := range cliptest.Words {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(liar(word))
			defer srv.Close()
			for args, rows := range map[string]int{
				"hosts": 3, "hosts web": 3, "host show web-1": 0, "status": 0, "watch web": 0, "channel list": 3, "channel show web": 0, "channel history web": 0,
				"host hold web-1 --reason x": 1, "host retry web-1": 0, "host approve web-1": 0, "channel policy web": 0,
				"hosts --json": 0, "host show web-1 --json": 0, "watch web --json": 0, "channel list --json": 0,
			} {
				var out, errs strings.Builder
				code := run(append(strings.Fields(args), "--server", srv.URL), strings.NewReader(""), &out, &errs)
				text := out.String() + errs.String()
				if bad := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); bad >= 0 {
					t.Errorf("%s: exit %d, with %q", args, code, text[bad:min(len(text), bad+20)])
				}
				if strings.Contains(text, "\u0301\u0301\u0301\u0301\u0301") {
					t.Errorf("%s: a tower of marks", args)
				}
				if n := strings.Count(text, "\n"); text == "" || rows > 0 && n != rows {
					t.Errorf("%s: %d lines, want %d: %.300q", args, n, rows, text)
				}
				if len(text) > 600_000 {
					t.Errorf("%s: %d bytes", args, len(text))
				}
			}
		})
	}
}

// TestWordsOfNoNarwharf: neither are the status line and the body of whatever answers there.
func TestWordsOfNoNarwharf(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			body := "\x1b[2Jpwned\u202e\r\n\x1b]0;x\a"
			fmt.Fprintf(conn, "HTTP/1.1 418 teapot \x1b[2J\u009b\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			conn.Close()
		}
	}()
	t.Setenv("HOME", t.TempDir())
	var out, errs strings.Builder
	code := run([]string{"hosts", "--server", "http://" + path.Clean(l.Addr().String())}, strings.NewReader(""), &out, &errs)
	text := out.String() + errs.String()
	if code == 0 || !strings.Contains(text, "pwned") || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("exit %d, with %q", code, text)
	}
}
