// Package issuers opens those whose JWTs a configuration takes.
package issuers

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/hooks/api"
	"narwharf/hooks/serverconfig"
	"narwharf/signing/access/oidc"
)

// Open makes the issuers of a configuration. None of them is asked before a JWT comes. The alarm that the
// keys of one cannot be had, and its end, go to tell, if that is not nil.
func Open(cfg *serverconfig.Config, log *slog.Logger, metrics prometheus.Registerer, tell func(context.Context, api.Event) error) *oidc.Issuers {
	o := oidc.Options{Log: log, Metrics: metrics}
	if tell != nil {
		o.Alarm = func(issuer, text string) {
			e := api.Event{Kind: "access.issuer", By: "server", Alarm: text != "", Text: fmt.Sprintf("the keys of the issuer %s cannot be had: %s", issuer, text), Data: map[string]string{"issuer": issuer}}
			if text == "" {
				e.Text = "it is over: the keys of the issuer " + issuer + " can be had"
			}
			if err := tell(context.Background(), e); err != nil {
				log.Error("an alarm is in no audit log", "kind", e.Kind, "error", err)
			}
		}
	}
	for i := range cfg.Access.OIDC {
		c := &cfg.Access.OIDC[i]
		o.Issuers = append(o.Issuers, oidc.Config{
			Name: c.Name, URL: c.Issuer, Audience: c.Audience, ClientID: c.ClientID, Private: c.PrivateAddresses, Rules: c.Checked(),
		})
	}
	return oidc.New(o)
}
