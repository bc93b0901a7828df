package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/signing/access/oidc"
)

// issuers are those of the configuration. None of them is asked before a JWT comes.
func (d *DataDir) issuers(metrics prometheus.Registerer) *oidc.Issuers {
	o := oidc.Options{Log: d.log, Metrics: metrics}
	for i := range d.Config.Access.OIDC {
		c := &d.Config.Access.OIDC[i]
		o.Issuers = append(o.Issuers, oidc.Config{
			Name: c.Name, URL: c.Issuer, Audience: c.Audience, ClientID: c.ClientID, Private: c.PrivateAddresses, Rules: c.Checked(),
		})
	}
	return oidc.New(o)
}
