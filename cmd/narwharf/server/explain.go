package server

import (
	"context"
	"log/slog"

	"narwharf/cmd/narwharf/server/issuers"
	"narwharf/hooks/serverconfig"
	"narwharf/signing/access/oidc"
)

// Explain says what a JWT comes to by a configuration, as it stands.
func Explain(ctx context.Context, cfg *serverconfig.Config, jwt string, log *slog.Logger) oidc.Report {
	is := issuers.Open(cfg, log, nil, nil)
	defer is.Close()
	return is.Explain(ctx, jwt)
}
