package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/hooks/exchange"
	"narwharf/signing/access/oidc"
)

// judge is whoever knows what JWTs give, nil where nothing is served.
func (d *DataDir) judge() exchange.Judge {
	if d.issuers == nil {
		return nil
	}
	return d.issuers
}

// openIssuers are those of the configuration. None of them is asked before a JWT comes.
func (d *DataDir) openIssuers(metrics prometheus.Registerer) *oidc.Issuers {
	o := oidc.Options{Log: d.log, Metrics: metrics}
	for i := range d.Config.Access.OIDC {
		c := &d.Config.Access.OIDC[i]
		o.Issuers = append(o.Issuers, oidc.Config{
			Name: c.Name, URL: c.Issuer, Audience: c.Audience, ClientID: c.ClientID, Private: c.PrivateAddresses, Rules: c.Checked(),
		})
	}
	return oidc.New(o)
}
