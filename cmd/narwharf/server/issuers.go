package server

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/hooks/api"
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
	o := oidc.Options{Log: d.log, Metrics: metrics, Alarm: d.issuerAlarm}
	for i := range d.Config.Access.OIDC {
		c := &d.Config.Access.OIDC[i]
		o.Issuers = append(o.Issuers, oidc.Config{
			Name: c.Name, URL: c.Issuer, Audience: c.Audience, ClientID: c.ClientID, Private: c.PrivateAddresses, Rules: c.Checked(),
		})
	}
	return oidc.New(o)
}

// issuerAlarm notes that the keys of an issuer cannot be had.
func (d *DataDir) issuerAlarm(issuer, text string) {
	if d.channels == nil { // nothing is served
		return
	}
	e := api.Event{Kind: "access.issuer", By: "server", Alarm: true, Text: fmt.Sprintf("the keys of the issuer %s cannot be had: %s", issuer, text)}
	if err := d.channels.Retain.Note(context.Background(), e); err != nil {
		d.log.Error("an alarm is in no audit log", "kind", e.Kind, "error", err)
	}
}
