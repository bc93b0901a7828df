package hooks

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// brokenTokens is a token store that cannot be read.
type brokenTokens struct{}

func (brokenTokens) Lookup(context.Context, string) (access.Token, error) {
	return access.Token{}, errors.New("the disk is on fire")
}

// TestTokenUnchecked: a token that could not be checked is no token without
// rights. The caller asks again, and the server's log says why.
func TestTokenUnchecked(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.s.log = slog.New(slog.NewTextHandler(&log, nil))
	w.s.access = access.NewAuthenticator(access.Options{Tokens: brokenTokens{}, Anonymous: scope.Set{{Kind: scope.Pull}}})
	for _, path := range []string{desiredPath, "/api/v1/hosts", "/api/v1/events"} {
		log.Reset()
		a := w.must(w.do("GET", path, w.admin, nil), 503, api.Unavailable, "could not be checked")
		if s := a.header.Get("Retry-After"); s < "1" || s > "5" || len(s) != 1 {
			t.Errorf("GET %s: Retry-After %q", path, s)
		}
		if !strings.Contains(log.String(), "the disk is on fire") {
			t.Errorf("GET %s: the log has %q", path, &log)
		}
	}
	// What everybody may needs no token.
	w.must(w.do("GET", "/api/v1/channels", w.admin, nil), 200, "")
	w.must(w.do("GET", "/api/v1/hosts", "", nil), 401, api.Unauthorized)
}
