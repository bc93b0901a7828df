package uploads

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestBook: who uploaded how much, what was refused with its words, and no strangers.
func TestBook(t *testing.T) {
	var b Book
	cache := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			t.Error(err)
		}
		if strings.Contains(req.URL.Path, "bad") {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, "it is \x1b[31mnot\n")
			_, _ = io.WriteString(w, strings.Repeat("more", 1000))
		}
	})
	h := b.around(cache, func(req *http.Request) string { return req.Header.Get("Who") })
	do := func(method, path, who, body string) {
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		req.Header.Set("Who", who)
		h.ServeHTTP(httptest.NewRecorder(), req)
	}
	do("PUT", "/a.narinfo", "ci", "12345")
	do("PUT", "/nar/a.nar", "ci", strings.Repeat("x", 100))
	do("PUT", "/bad.narinfo", "ada", "x")
	do("PUT", "/bad.narinfo", "", "x")
	do("GET", "/bad.narinfo", "ada", "")
	s, r := b.Senders(), b.Refused()
	if len(s) != 2 || s[0].Name != "ci" || s[0].Paths != 1 || s[0].Bytes != 105 || s[0].Refused != 0 || s[1].Refused != 1 || s[1].Paths != 0 {
		t.Errorf("%+v", s)
	}
	if len(r) != 1 || r[0].Who != "ada" || r[0].Status != 422 || strings.ContainsAny(r[0].Words, "\x1b\n") || !strings.Contains(r[0].Words, "it is") || strings.Contains(r[0].Words, "more") {
		t.Errorf("%+v", r)
	}
	for i := range 500 {
		do("PUT", fmt.Sprintf("/bad/%d", i), fmt.Sprintf("who-%d", i), "")
	}
	if s, r := b.Senders(), b.Refused(); len(s) != maxSenders || len(r) != maxRefused || r[0].What != "/bad/499" {
		t.Errorf("%d senders, %d refused, %+v", len(s), len(r), r[0])
	}
}

// TestControl: deadlines of a body reach the connection.
func TestControl(t *testing.T) {
	var b Book
	srv := httptest.NewServer(b.around(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
	}), func(*http.Request) string { return "x" }))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), "PUT", srv.URL, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
