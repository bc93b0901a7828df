package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// TestTokenIsReadAgain: a new token in the file works without a restart, and a
// token that is refused is not asked about twice.
func TestTokenIsReadAgain(t *testing.T) {
	good, asked := "old", 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Header.Get("Authorization") != "Bearer "+good {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old\n")
	c, err := NewClient(ClientOptions{Servers: []string{server.URL}, TokenFile: file})
	if err != nil {
		t.Fatal(err)
	}
	refused := func() bool {
		t.Helper()
		_, err := c.Do(context.Background(), Call{Path: "/x"})
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Status != http.StatusUnauthorized) {
			t.Fatal(err)
		}
		return err != nil
	}
	if refused() {
		t.Fatal("the first token is refused")
	}
	good, asked = "new", 0
	if !refused() || asked != 1 {
		t.Fatalf("asked %d times with a token that is none", asked)
	}
	for _, text := range []string{"", "two words\n"} { // half written
		write(text)
		if !refused() {
			t.Fatalf("%q is taken", text)
		}
	}
	write("new\n")
	if asked = 0; refused() || asked != 2 || c.Token() != "new" {
		t.Fatalf("asked %d times, the token is %q", asked, c.Token())
	}
	if asked = 0; refused() || asked != 1 {
		t.Fatalf("asked %d times", asked)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if good = "newer"; !refused() {
		t.Fatal("a lost file is no error of the call")
	}
}
