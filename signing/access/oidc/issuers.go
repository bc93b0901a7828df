package oidc

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/signing/access"
	"narwharf/signing/access/rule"
)

// Config is one issuer, as the configuration has checked it.
type Config struct {
	Name     string // here
	URL      string // iss, to the byte
	Audience string
	ClientID string // of logins; "" if there are none
	Private  bool   // it may be at a private address
	Rules    []*rule.Rule
}

// Options of Issuers.
type Options struct {
	Issuers []Config // names and URLs are there once
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Alarm is told, once until it works again, that the keys of an issuer cannot be had, and with an empty text that
	// they can; nil: nobody.
	Alarm func(issuer, text string)
	Clock func() time.Time // nil: time.Now
	Roots *x509.CertPool   // that issuers' certificates are signed by; nil: the system's
}

// Issuers are those whose JWTs are taken. It is an access.Verifier.
type Issuers struct {
	clock   func() time.Time
	byURL   map[string]*Issuer
	byName  map[string]*Issuer
	list    []*Issuer
	metrics *metrics
	known   *lru.Cache[[sha256.Size]byte, verified]
}

// Identity is what a good JWT is.
type Identity struct {
	Grant access.Grant // its Ends is that of the JWT
	Rule  *rule.Rule
}

// verified is an identity in memory.
type verified struct {
	Identity
	until time.Time
}

// How many are in memory, and for how long at most.
const (
	maxKnown  = 10_000
	knownLast = time.Hour
)

// New makes Issuers. It asks nobody.
func New(o Options) *Issuers {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	known, err := lru.New[[sha256.Size]byte, verified](maxKnown)
	if err != nil {
		panic(err) // of a size below 1
	}
	s := &Issuers{clock: o.Clock, byURL: map[string]*Issuer{}, byName: map[string]*Issuer{}, known: known}
	s.metrics = newMetrics(s)
	for _, c := range o.Issuers {
		is := newIssuer(c, o, s.metrics)
		s.byURL[c.URL], s.byName[c.Name] = is, is
		s.list = append(s.list, is)
	}
	if o.Metrics != nil {
		o.Metrics.MustRegister(s.metrics)
	}
	return s
}

// Close ends what is asked of issuers just now.
func (s *Issuers) Close() {
	for _, is := range s.list {
		is.close()
	}
}

func (s *Issuers) shown(ctx context.Context, jwt string) (access.Grant, error) {
	id, err := s.Judge(ctx, jwt)
	if err != nil {
		return access.Grant{}, err
	}
	return rule.Shown(id.Grant), nil
}

// Judge returns what a JWT gives whose bearer exchanges it, or joins with it. A *Refused, or
// access.ErrUnchecked.
func (s *Issuers) Judge(ctx context.Context, jwt string) (Identity, error) {
	hash := sha256.Sum256([]byte(jwt))
	if v, ok := s.known.Get(hash); ok && s.clock().Before(v.until) {
		return v.Identity, nil
	}
	is, t, err := s.verify(ctx, jwt, func(is *Issuer, t *token) *Refused { return t.checkAudience(is.Audience, is.ClientID) })
	var id Identity
	if err == nil {
		id, err = is.identity(t)
	}
	if err != nil {
		s.metrics.refused(is, err)
		return Identity{}, err
	}
	until := id.Grant.Ends
	if most := s.clock().Add(knownLast); most.Before(until) {
		until = most
	}
	s.known.Add(hash, verified{id, until})
	return id, nil
}

// Login returns what the ID token of a login by code gives, which is the issuer's of that name, for
// its client, with the nonce that was sent.
func (s *Issuers) Login(ctx context.Context, name, jwt, nonce string) (Identity, error) {
	is, t, err := s.verify(ctx, jwt, func(is *Issuer, t *token) *Refused {
		switch {
		case is.Name != name || is.ClientID == "" || t.checkAudience(is.ClientID, "") != nil:
			return refuse("audience", "the ID token is not for our client")
		case nonce == "" || t.claims["nonce"] != nonce:
			return refuse("nonce", "the ID token is not the answer to this login: log in again")
		}
		return t.checkClient(is.ClientID)
	})
	var id Identity
	if err == nil {
		id, err = is.identity(t)
	}
	if err != nil {
		s.metrics.refused(is, err)
		return Identity{}, err
	}
	return id, nil
}

// verify decodes a JWT and checks all but what its claims give; the issuer is nil if it is none of ours.
func (s *Issuers) verify(ctx context.Context, jwt string, check func(*Issuer, *token) *Refused) (*Issuer, *token, error) {
	t, refused := parse(jwt)
	if refused != nil {
		return nil, nil, refused
	}
	is, ok := s.byURL[t.issuer]
	if !ok {
		return nil, nil, refuse("issuer", "the JWT's issuer is none that this server trusts: [[access.oidc]] in its configuration lists them")
	}
	refused = check(is, t)
	if refused == nil {
		refused = t.checkTime(s.clock())
	}
	if refused != nil {
		return is, t, refused
	}
	return is, t, is.keys.check(ctx, jwt, t)
}

// Report is what a JWT comes to, for who wants to know why.
type Report struct {
	Issuer  string         `json:"issuer,omitempty"`  // its name here; "" if it is none of ours
	Problem string         `json:"problem,omitempty"` // what is wrong with the JWT itself
	Rule    string         `json:"rule,omitempty"`    // that counts, were it not for the problem
	Rules   []rule.Verdict `json:"rules,omitempty"`
}

// Explain says what a JWT comes to, by each rule of its issuer. It does so for one that is not good, too.
func (s *Issuers) Explain(ctx context.Context, jwt string) Report {
	is, t, err := s.verify(ctx, jwt, func(is *Issuer, t *token) *Refused { return t.checkAudience(is.Audience, is.ClientID) })
	var r Report
	if err != nil {
		r.Problem = err.Error()
	}
	if is == nil {
		return r
	}
	r.Issuer, r.Rules = is.Name, rule.Explain(is.Rules, t.claims)
	for _, v := range r.Rules {
		if v.Fits {
			r.Rule = v.Rule
			break
		}
	}
	return r
}

// Issuer is the issuer of a name, nil if there is none.
func (s *Issuers) Issuer(name string) *Issuer { return s.byName[name] }

// All are the issuers, in the order of the configuration.
func (s *Issuers) All() []*Issuer { return s.list }

// reason is the word for why a JWT is not good.
func reason(err error) string {
	if r := (*Refused)(nil); errors.As(err, &r) {
		return r.Reason
	}
	return "unchecked"
}
