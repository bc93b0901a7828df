package failure

import (
	"fmt"
	"io/fs"
	"net/http"
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
		if _, _, text := Of(http.MethodGet, err); strings.Contains(text, "secret") {
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
