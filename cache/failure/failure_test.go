package failure

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"narwharf/cache/blob"
	"narwharf/cache/reply"
)

// Nothing of the inside goes out with an error.
func TestErrorsTellNothingInternal(t *testing.T) {
	secret := &fs.PathError{Op: "write", Path: "/var/lib/secret/tmp/1.2", Err: syscall.ENOSPC}
	for _, err := range []error{secret, fmt.Errorf("%w: %w", blob.ErrFull, secret), fmt.Errorf("%w: %w", reply.ErrBody, secret)} {
		if _, _, text := Of(httptest.NewRequest(http.MethodGet, "/", nil), err); strings.Contains(text, "secret") {
			t.Errorf("%v becomes %q", err, text)
		}
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		" a\r\nb\x1b[31m\n": "a  b [31m", "": "", "grün": "grün",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	long := oneLine(strings.Repeat("ü", 1000))
	if len(long) > 1000 || !strings.HasSuffix(long, "ü…") {
		t.Errorf("a long text becomes %d bytes, %q", len(long), long[len(long)-20:])
	}
}

// A bucket that is away is said so that each Nix does what helps: one that can sends the
// body again, another ends with the words.
func TestAwayByClient(t *testing.T) {
	err := fmt.Errorf("store nar/x: %w", blob.ErrAway)
	for agent, put := range map[string]int{
		"curl/8.23.0-rc3 Nix/2.34.8": 503, "curl/8.14 Nix/2.33.0": 503, "curl/8 Nix/3.0.1": 503,
		"curl/8.13.0 Nix/2.26.3": 403, "curl/7.85.0 Nix/2.8.0": 403, "": 403, "Lix/2.93": 403,
	} {
		for method, want := range map[string]int{http.MethodPut: put, http.MethodGet: 503} {
			req := httptest.NewRequest(method, "/nar/x", nil)
			req.Header.Set("User-Agent", agent)
			if status, _, text := Of(req, err); status != want || !strings.Contains(text, "does not answer") {
				t.Errorf("%s by %q: %d %s, want %d", method, agent, status, text, want)
			}
		}
	}
}
