package oidc

import (
	"context"
	"net/http"

	"narwharf/signing/access"
)

// verdict is what came of the JWT of a request.
type verdict struct {
	jwt   string
	grant access.Grant
	err   error
}

type verdictKey struct{}

// Once has the JWT of a request judged once, however many ask about it: one that is refused costs its
// signature, and is counted.
func Once(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if len(req.Header["Authorization"]) > 0 {
			req = req.WithContext(context.WithValue(req.Context(), verdictKey{}, new(verdict)))
		}
		next.ServeHTTP(w, req)
	})
}

// Verify implements access.Verifier: what a JWT gives that is shown as it is.
func (s *Issuers) Verify(ctx context.Context, jwt string) (access.Grant, error) {
	v, _ := ctx.Value(verdictKey{}).(*verdict)
	if v == nil {
		v = new(verdict)
	}
	if v.jwt != jwt || jwt == "" {
		v.jwt = jwt
		v.grant, v.err = s.shown(ctx, jwt)
	}
	return v.grant, v.err
}
