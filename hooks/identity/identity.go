// Package identity says who a machine is that has no token, by what it shows with its join: a
// signature by its SSH host key, a request to AWS signed with its role's credentials, or the JWT
// that its cloud gave it. What comes of it is a grant, for which hooks/host makes a short-lived
// token, if the name is free or the machine's own.
//
// # What it promises
//
//   - A proof over a nonce is good once: Confirm spends the nonce in the transaction that makes
//     the token.
//   - What a machine may be called is decided by its key, a claim, or the globs of a rule, never by
//     what it asks for.
//   - A stranger leaves a bounded number of [Ask]s behind, and nothing else.
//
// # Format
//
// In the state, as JSON:
//
//	hooks/host-key  <fingerprint>  Approved: whose the key is, as an operator said
//	hooks/host-ask  <fingerprint>  Ask: a key that nobody has approved
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/proof"
	"narwharf/hooks/host"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
	"narwharf/signing/access/awsiam"
	"narwharf/signing/access/challenge"
	"narwharf/signing/access/hostkey"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/shortlived"
)

// JWTs verifies the JWTs of machines.
type JWTs interface {
	// Machine returns what a JWT gives, and the globs of names that its rule has. The error is as
	// that of access.Verifier.
	Machine(ctx context.Context, jwt string) (g access.Grant, names []string, err error)
}

// SSH is the section [access.ssh].
type SSH struct {
	Scopes scope.Set // follow: alone
	TTL    time.Duration
	Forget time.Duration
}

// AWS is a rule of [[access.aws]].
type AWS struct {
	Name, Account, Role string
	Scopes              scope.Set // follow: alone
	Hosts               []string  // globs of names
	TTL, Forget         time.Duration
}

// Options of New.
type Options struct {
	Set       *mirror.Set
	Short     *shortlived.Store
	PublicURL string // without a slash at its end; "" where no proof is over it
	SSH       *SSH   // nil: host keys are not taken
	AWS       []AWS
	STS       *awsiam.STS // nil if there is no AWS
	JWTs      JWTs        // nil: JWTs are not taken
	Log       *slog.Logger
	Clock     func() time.Time
}

// Identities knows machines by their proofs.
type Identities struct {
	o          Options
	challenges *challenge.Challenges
	keys       *mirror.Table[Approved]
	asks       *mirror.Table[Ask]
	list       list
}

// New opens what the state has of challenges and keys.
func New(ctx context.Context, o Options) (i *Identities, err error) {
	i = &Identities{o: o}
	if i.challenges, err = challenge.Open(ctx, o.Set); err != nil {
		return nil, err
	}
	if i.keys, err = mirror.Open[Approved](o.Set, "hooks/host-key", "key of a host", nil); err == nil {
		i.asks, err = mirror.Open[Ask](o.Set, "hooks/host-ask", "key that asks", nil)
	}
	if err != nil {
		return nil, fmt.Errorf("open the keys of hosts: %w", err)
	}
	return i, nil
}

// Taken are the types of proof that are taken here.
func (i *Identities) Taken() (types []string) {
	if i.o.SSH != nil {
		types = append(types, proof.SSH)
	}
	if i.o.STS != nil {
		types = append(types, proof.AWS)
	}
	if i.o.JWTs != nil {
		types = append(types, proof.OIDC)
	}
	return types
}

// Challenge makes a nonce for a machine that wants to prove who it is.
func (i *Identities) Challenge(c *proof.Challenge) proof.Challenged {
	return proof.Challenged{
		Nonce:     i.challenges.New(c.Host, c.Instance, i.o.Clock()),
		ExpiresIn: int(challenge.Life / time.Second), URL: i.o.PublicURL,
	}
}

// A proven is what a machine has proved.
type proven struct {
	host.Proof
	// names are globs of names, of which the machine's is one, where Grant.Host is "".
	names []string
}

// Join makes the token of a machine that proves who it is. The error is an *api.Error, or the
// state's.
func (i *Identities) Join(ctx context.Context, hosts *host.Hosts, j *api.Join, address string) (*api.Joined, error) {
	p, err := i.prove(ctx, j, address)
	if err != nil {
		return nil, err
	}
	if !p.Scopes.Allows(scope.Scope{Kind: scope.Follow, Glob: j.Channel}) {
		return nil, api.Errorf(api.Forbidden, "%s gives %s, and not follow:%s: see the scopes of the rule in the server's configuration", p.Name(), p.Scopes, j.Channel)
	}
	as := *j
	if as.Host, err = p.name(j.Host, hosts.OfOwner(j.Instance, p.Owner), hosts.Known); err != nil {
		return nil, err
	}
	return hosts.JoinBy(ctx, address, &as, p.Proof)
}

// prove says who a machine is. The error is an *api.Error.
func (i *Identities) prove(ctx context.Context, j *api.Join, address string) (*proven, error) {
	taken := i.Taken()
	if !slices.Contains(taken, j.Proof.Type) {
		return nil, api.Errorf(api.Forbidden, "a proof of the type %q is not taken here, %s: see [access] in the server's configuration, or join with a join token", clip.ASCII(j.Proof.Type, 16), either(taken))
	}
	switch j.Proof.Type {
	case proof.SSH:
		return i.bySSH(ctx, j, address)
	case proof.AWS:
		return i.byAWS(ctx, j)
	}
	g, names, err := i.o.JWTs.Machine(ctx, j.Proof.Token)
	if errors.Is(err, access.ErrUnchecked) {
		i.o.Log.Error("the JWT of a machine could not be checked", "error", err)
		return nil, api.Errorf(api.Unavailable, "the JWT could not be checked now: try again soon")
	}
	if err != nil {
		return nil, api.Errorf(api.Forbidden, "%s", clip.ASCII(err.Error(), 300))
	}
	return &proven{host.Proof{Grant: g, Confirm: func(*mirror.Tx) error { return nil }}, names}, nil
}

func either(taken []string) string {
	if len(taken) == 0 {
		return "none is"
	}
	return "but " + clip.List(taken)
}

// byAWS asks AWS who made a proof.
func (i *Identities) byAWS(ctx context.Context, j *api.Join) (*proven, error) {
	p := j.Proof
	if err := i.challenges.Check(p.Nonce, j.Host, j.Instance, i.o.Clock()); err != nil {
		return nil, api.Errorf(api.Forbidden, "%v", err)
	}
	id, err := i.o.STS.Identify(ctx, awsiam.Proof{
		Region: p.Region, Date: p.Date, AccessKeyID: p.AccessKeyID, SessionToken: p.SessionToken, Signature: p.Signature,
	}, p.Nonce, i.o.PublicURL)
	switch {
	case errors.Is(err, awsiam.ErrUnavailable):
		i.o.Log.Warn("a machine of AWS could not be asked about", "error", err)
		return nil, api.Errorf(api.Unavailable, "%v", err)
	case err != nil:
		return nil, api.Errorf(api.Forbidden, "%v", err)
	}
	for _, r := range i.o.AWS {
		if r.Account != id.Account || r.Role != id.Role || !r.Scopes.Allows(scope.Scope{Kind: scope.Follow, Glob: j.Channel}) {
			continue
		}
		g := access.Grant{
			Kind: "aws", Issuer: "aws", Rule: r.Name, Subject: clip.ASCII(id.ARN, 128), Scopes: r.Scopes,
			Owner: "aws/" + id.Account + "/" + id.Role, TTL: r.TTL, Forget: r.Forget,
		}
		return &proven{host.Proof{Grant: g, Confirm: i.spend(j)}, r.Hosts}, nil
	}
	return nil, api.Errorf(api.Forbidden, "no rule of [[access.aws]] gives follow:%s to the role %s of the account %s", j.Channel, id.Role, id.Account)
}

// spend spends the nonce of a join.
func (i *Identities) spend(j *api.Join) func(tx *mirror.Tx) error {
	nonce, host, instance := j.Proof.Nonce, j.Host, j.Instance // as they were asked for
	return func(tx *mirror.Tx) error {
		err := i.challenges.Spend(tx, nonce, host, instance)
		if errors.As(err, new(*challenge.Refused)) {
			return api.Errorf(api.Forbidden, "%v", err)
		}
		return err
	}
}

// bySSH looks whose key has signed.
func (i *Identities) bySSH(ctx context.Context, j *api.Join, address string) (*proven, error) {
	if j.Host == "" {
		return nil, api.Errorf(api.BadRequest, "host is missing: a key is that of one host")
	}
	if err := i.challenges.Check(j.Proof.Nonce, j.Host, j.Instance, i.o.Clock()); err != nil {
		return nil, api.Errorf(api.Forbidden, "%v", err)
	}
	key, err := hostkey.Verify(j.Proof.Signature, hostkey.Message(j.Proof.Nonce, i.o.PublicURL, j.Host, j.Instance))
	if err != nil {
		return nil, api.Errorf(api.Forbidden, "%v", err)
	}
	fingerprint := key.Fingerprint()
	rule, err := i.whose(j.Host, fingerprint)
	if err != nil {
		return nil, err
	}
	if rule == ruleApproved && !i.approves(i.keys.Get(fingerprint), j) {
		rule = ""
	}
	if rule == "" {
		if err := i.ask(ctx, j, fingerprint, address); err != nil {
			return nil, err
		}
		if a := i.asks.Get(fingerprint); a != nil && a.RefusedBy != "" {
			return nil, api.Errorf(api.Forbidden, "%s has refused the key %s as that of %s. If that was a mistake: narwharf host approve %s --key %s", a.RefusedBy, fingerprint, j.Host, j.Host, fingerprint)
		}
		return nil, api.Errorf(api.Forbidden, "nobody has said yet that the key %s is that of %s, in the channel %s. If this machine's console shows the same key (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub): narwharf host approve %s --key %s", fingerprint, j.Host, j.Channel, j.Host, fingerprint)
	}
	s := i.o.SSH
	g := access.Grant{
		Kind: "ssh", Issuer: "ssh", Rule: rule, Subject: fingerprint, Scopes: s.Scopes, Host: j.Host, Owner: "ssh/" + fingerprint, TTL: s.TTL, Forget: s.Forget,
	}
	spend := i.spend(j)
	return &proven{Proof: host.Proof{Grant: g, Certain: true, Confirm: func(tx *mirror.Tx) error {
		if rule == ruleApproved && !i.approves(i.keys.In(tx, fingerprint), j) {
			return api.Errorf(api.Forbidden, "the key %s is not that of %s any more", fingerprint, j.Host)
		}
		if i.asks.In(tx, fingerprint) != nil {
			i.asks.Put(tx, fingerprint, nil)
		}
		return spend(tx)
	}}}, nil
}

// approves tells whether what an operator said is about this host and channel.
func (i *Identities) approves(a *Approved, j *api.Join) bool {
	return a != nil && a.Host == j.Host && a.Channel == j.Channel
}

// SweepUntil deletes nonces that were used and are over, until ctx ends.
func (i *Identities) SweepUntil(ctx context.Context) {
	for tick := time.NewTicker(challenge.Life); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if err := i.challenges.Sweep(ctx); err != nil && ctx.Err() == nil {
			i.o.Log.Error("nonces that are over stay for now", "error", err)
		}
	}
}
