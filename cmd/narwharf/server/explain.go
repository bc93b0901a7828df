package server

import (
	"context"
	"log/slog"

	"narwharf/hooks/serverconfig"
	"narwharf/signing/access/oidc"
)

// Explain says what a JWT comes to by a configuration, as it stands.
func Explain(ctx context.Context, cfg *serverconfig.Config, jwt string, log *slog.Logger) oidc.Report {
	issuers := (&DataDir{Config: cfg, log: log}).openIssuers(nil)
	defer issuers.Close()
	return issuers.Explain(ctx, jwt)
}
