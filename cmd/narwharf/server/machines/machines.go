// Package machines is how machines join a server without a token, as its configuration says, and the
// known_hosts file with the keys of some.
package machines

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"narwharf/hooks/identity"
	"narwharf/hooks/serverconfig"
	"narwharf/signing/access"
	"narwharf/signing/access/awsiam"
	"narwharf/signing/access/oidc"
)

// Options are those of the configuration. aws is the transport to AWS; nil is the usual one.
func Options(cfg *serverconfig.Config, issuers *oidc.Issuers, aws http.RoundTripper) (o identity.Options) {
	if u := cfg.URL(); u != nil {
		o.PublicURL = u.String()
	}
	if s := &cfg.Access.SSH; s.Follows() != nil {
		o.SSH = &identity.SSH{Scopes: s.Follows(), TTL: time.Duration(s.TTL), Forget: time.Duration(s.ForgetAfter)}
	}
	for i := range cfg.Access.AWS {
		a := &cfg.Access.AWS[i]
		o.AWS = append(o.AWS, identity.AWS{
			Name: a.Name, Account: a.Account, Role: a.Role, Scopes: a.Follows(), Hosts: a.Names(), TTL: time.Duration(a.TTL), Forget: time.Duration(a.ForgetAfter),
		})
	}
	if len(o.AWS) > 0 {
		o.STS = awsiam.New(aws, time.Now)
	}
	for _, i := range cfg.Access.OIDC {
		for _, r := range i.Checked() {
			if r.Machines() && issuers != nil {
				o.JWTs = jwts{issuers}
			}
		}
	}
	return o
}

// jwts are the issuers, for machines.
type jwts struct{ *oidc.Issuers }

// forgetAfter is after which time without a word a machine of a cloud is forgotten, if its rule says nothing.
const forgetAfter = 24 * time.Hour

// Machine implements identity.JWTs.
func (j jwts) Machine(ctx context.Context, jwt string) (g access.Grant, names []string, err error) {
	id, err := j.Judge(ctx, jwt)
	if err != nil {
		return g, nil, err
	}
	if id.Rule == nil || !id.Rule.Machines() {
		return g, nil, fmt.Errorf("the rule %s is not one of machines: it has no scope follow:GLOB", id.Grant.Name())
	}
	if id.Grant.Forget == 0 {
		id.Grant.Forget = forgetAfter
	}
	return id.Grant, id.Rule.Hosts(), nil
}

// Keys keeps the known_hosts file.
type Keys struct {
	cfg  *serverconfig.SSH
	to   *identity.Identities
	log  *slog.Logger
	seen string // what the file was when it was read last
}

// KeepKeys reads the file for the first time.
func KeepKeys(ctx context.Context, cfg *serverconfig.Config, to *identity.Identities, log *slog.Logger) (*Keys, error) {
	k := &Keys{cfg: &cfg.Access.SSH, to: to, log: log}
	k.seen = k.look()
	l, err := k.cfg.List()
	if err == nil {
		err = to.SetList(ctx, l)
	}
	return k, err
}

// look says which file it is, as far as that can be seen without reading it.
func (k *Keys) look() string {
	st, err := os.Stat(k.cfg.KnownHosts)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(st.Size(), st.ModTime().UnixNano(), st.Sys())
}

// lookEvery is how long a key that was taken out may do at most.
const lookEvery = 500 * time.Millisecond

// Tend reads the file again when it changes, until ctx ends. A file that is wrong changes nothing,
// and is an alarm.
func (k *Keys) Tend(ctx context.Context, alarm func(ctx context.Context, text string) error) {
	if k.cfg.KnownHosts == "" {
		return
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := k.look(); now != k.seen {
			k.seen = now
			k.Reread(ctx, alarm)
		}
	}
}

// Reread reads the file again.
func (k *Keys) Reread(ctx context.Context, alarm func(ctx context.Context, text string) error) {
	if k.cfg.KnownHosts == "" {
		return
	}
	l, err := k.cfg.List()
	if err == nil {
		err = k.to.SetList(ctx, l)
	}
	text := ""
	if err == nil {
		k.log.Info("read the keys of hosts again", "file", k.cfg.KnownHosts, "keys", l.Len())
	} else {
		text = fmt.Sprintf("the old keys of hosts stay in use: %v", err)
		k.log.Error(text)
	}
	if told := alarm(ctx, text); told != nil {
		k.log.Error("an alarm could not be noted", "error", told)
	}
}
