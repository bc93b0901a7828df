package uploads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/hooks/dashboard/store"
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
	st := memory.New(time.Now)
	look := func() ([]store.Sender, []store.Refusal) {
		t.Helper()
		s, r, err := b.Seen(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		return s, r
	}
	s, r := look()
	if len(s) != 2 || s[0].Name != "ci" || s[0].Paths != 1 || s[0].Bytes != 105 || s[0].Refused != 0 || s[1].Refused != 1 || s[1].Paths != 0 {
		t.Errorf("%+v", s)
	}
	if len(r) != 1 || r[0].Who != "ada" || r[0].Status != 422 || strings.ContainsAny(r[0].Words, "\x1b\n") || !strings.Contains(r[0].Words, "it is") || strings.Contains(r[0].Words, "more") {
		t.Errorf("%+v", r)
	}
	for i := range 500 {
		do("PUT", fmt.Sprintf("/bad/%d", i), fmt.Sprintf("who-%d", i), "")
	}
	if s, r := look(); len(s) != maxSenders || len(r) != maxRefused || r[0].What != "/bad/499" {
		t.Errorf("%d senders, %d refused, %+v", len(s), len(r), r[0])
	}
}

// TestKeep: servers add to the same, a restart keeps it, a write that fails is made up for, and it is bounded.
func TestKeep(t *testing.T) {
	now := time.Now().UTC()
	st := &broken{Store: memory.New(func() time.Time { return now })}
	note := func(b *Book, name, path string, status int) {
		b.note(name, path, &watched{status: status, words: []byte("no")}, 10)
	}
	var one, other Book
	note(&one, "ci", "/a.narinfo", 200)
	note(&other, "ci", "/b.narinfo", 200)
	note(&other, "ada", "/b.narinfo", 422)
	for _, b := range []*Book{&one, &other} {
		st.fails = true
		if err := b.write(t.Context(), st); !errors.Is(err, errBroken) {
			t.Errorf("a write that fails: %v", err)
		}
		st.fails = false
		if err := b.write(t.Context(), st); err != nil {
			t.Error(err)
		}
		if err := b.write(t.Context(), st); err != nil { // nothing is counted twice
			t.Error(err)
		}
	}
	note(&one, "ci", "/c.narinfo", 200)
	for _, b := range []*Book{new(Book), &one} { // a restarted one, and one that has not written its last yet
		s, r, err := b.Seen(t.Context(), st)
		want := int64(2)
		if b == &one {
			want = 3
		}
		if err != nil || len(s) != 2 || s[0].Name != "ci" || s[0].Paths != want || s[0].Bytes != want*10 || s[1].Refused != 1 || len(r) != 1 || r[0].Who != "ada" {
			t.Errorf("%+v %+v, %v", s, r, err)
		}
	}
	for i := range 300 {
		note(&one, fmt.Sprint("who-", i), "/x", 403)
	}
	if err := one.write(t.Context(), st); err != nil {
		t.Error(err)
	}
	if s, r, err := new(Book).Seen(t.Context(), st); err != nil || len(s) != maxSenders || len(r) != maxRefused || r[0].Who != "who-299" {
		t.Errorf("%d senders, %d refused, %v", len(s), len(r), err)
	}
	now = now.Add(silent + time.Hour)
	note(&other, "late", "/x", 200)
	other.new.senders[0].Last = now
	if err := other.write(t.Context(), st); err != nil {
		t.Error(err)
	}
	if s, _, err := other.Seen(t.Context(), st); err != nil || len(s) != 1 || s[0].Name != "late" {
		t.Errorf("after 90 days: %+v, %v", s, err)
	}
}

var errBroken = errors.New("the database is away")

// broken is a state whose writes fail now and then.
type broken struct {
	state.Store
	fails bool
}

func (b *broken) Update(ctx context.Context, locks []string, fn func(state.Tx) error) error {
	if b.fails {
		return errBroken
	}
	return b.Store.Update(ctx, locks, fn)
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
