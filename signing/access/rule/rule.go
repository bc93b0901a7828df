package rule

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"narwharf/narinfo/clip"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// Spec is a rule as a person writes it.
type Spec struct {
	Name      string
	Claims    map[string]any // as TOML has them: texts, int64, bool, lists, tables
	Scopes    []string
	TTL       time.Duration // of what it is exchanged for; 0: an hour
	HostClaim string        // the claim that has the name of a machine, as a dotted key
	Hosts     []string      // globs of names that machines may have
	Forget    time.Duration // of machines: forgotten so long after their last word; 0: as the server does others
}

// Rule is a rule that makes sense.
type Rule struct {
	spec   Spec
	scopes scope.Set
	bounds []bound // scopes with a target that a claim names
	claims table
	host   []string // path of the claim
}

// The bounds of TTL, and what it is if nothing is said.
const (
	minTTL     = time.Minute
	maxTTL     = 12 * time.Hour
	defaultTTL = time.Hour
)

var (
	nameGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)
	hostGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,126}$`)
	globGrammar = regexp.MustCompile(`^[a-zA-Z0-9*][a-zA-Z0-9*._-]{0,126}$`)
)

// CheckName says what is wrong with the name of a rule, or of an issuer.
func CheckName(name string) error {
	if !nameGrammar.MatchString(name) {
		return fmt.Errorf("name %s is not 1 to 64 letters, digits and . _ -, the first a letter or digit", clip.Quote(name, 64))
	}
	return nil
}

// New checks a rule for an issuer's JWTs.
func New(s Spec, issuer string) (*Rule, error) {
	if err := CheckName(s.Name); err != nil {
		return nil, err
	}
	r := &Rule{spec: s}
	err := r.read(issuer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	return r, nil
}

func (r *Rule) read(issuer string) (err error) {
	s := &r.spec
	if r.claims, err = compile(s.Claims, 1); err != nil {
		return fmt.Errorf("claims: %w", err)
	}
	if Shared(issuer) {
		if err := r.claims.bound(); err != nil {
			return fmt.Errorf("claims: %w", err)
		}
	}
	if err := r.readScopes(); err != nil {
		return fmt.Errorf("scopes: %w", err)
	}
	if s.TTL == 0 {
		s.TTL = defaultTTL
	}
	switch {
	case len(r.scopes)+len(r.bounds) == 0:
		return fmt.Errorf("scopes: there are none: give some of %s", scope.Valid)
	case slices.ContainsFunc(r.scopes, func(s scope.Scope) bool { return s.Kind == scope.Join }):
		return errors.New("scopes: join is for join tokens: a machine that fits a rule with follow: needs none")
	case s.TTL < minTTL || s.TTL > maxTTL:
		return fmt.Errorf("ttl: %s is not between %s and %s", s.TTL, minTTL, maxTTL)
	}
	return r.readHosts()
}

// readHosts checks what a rule says of machines.
func (r *Rule) readHosts() (err error) {
	s := &r.spec
	switch {
	case !r.Machines() && (s.HostClaim != "" || len(s.Hosts) > 0 || s.Forget != 0):
		return errors.New("host_claim, hosts and forget_after are for machines, and the rule has no scope follow:GLOB")
	case !r.Machines():
		return nil
	case s.HostClaim == "" && len(s.Hosts) == 0:
		return errors.New("it has follow: and does not say which names machines may have: give hosts = \"web-*\", or host_claim, the claim that has the name")
	case s.Forget < 0:
		return errors.New("forget_after is below 0")
	}
	if s.HostClaim != "" {
		if r.host, err = parsePath(s.HostClaim); err != nil {
			return fmt.Errorf("host_claim: %w", err)
		}
	}
	for _, glob := range s.Hosts {
		if !globGrammar.MatchString(glob) || strings.Contains(glob, "**") {
			return fmt.Errorf("hosts: %s is no glob of host names like \"web-*\"", clip.Quote(glob, 64))
		}
	}
	return nil
}

// Name is the rule's.
func (r *Rule) Name() string { return r.spec.Name }

// Machines tells whether it is a rule of machines.
func (r *Rule) Machines() bool { return follows(r.scopes) }

func follows(scopes scope.Set) bool {
	return slices.ContainsFunc(scopes, func(s scope.Scope) bool { return s.Kind == scope.Follow })
}

// Hosts are the globs of the names that machines may have.
func (r *Rule) Hosts() []string { return slices.Clone(r.spec.Hosts) }

// MayName tells whether a machine that fits the rule may have a name, as far as globs say.
func (r *Rule) MayName(host string) bool {
	return hostGrammar.MatchString(host) && (len(r.spec.Hosts) == 0 || slices.ContainsFunc(r.spec.Hosts, func(glob string) bool { return match(glob, host) }))
}

// Verdict is what came of one rule.
type Verdict struct {
	Rule        string       `json:"rule"`
	Fits        bool         `json:"fits"`
	Differences []Difference `json:"differences,omitempty"`
}

// judge says what claims come to, by this rule alone.
func (r *Rule) judge(claims map[string]any) (host string, bound scope.Set, v Verdict) {
	v = Verdict{Rule: r.spec.Name, Differences: r.claims.differ(nil, claims)}
	for i := range r.bounds {
		if len(v.Differences) > 0 {
			break // of a claim that does not fit it is said already
		}
		s, d := r.bounds[i].of(claims)
		if d != nil {
			v.Differences = append(v.Differences, *d)
		}
		bound = append(bound, s)
	}
	if r.host != nil {
		value := find(claims, r.host)
		var ok bool
		host, ok = scalar(value)
		if wants := "the name of a host"; !ok || !r.MayName(host) {
			if len(r.spec.Hosts) > 0 {
				wants += " like " + pattern{texts: r.spec.Hosts}.String()
			}
			v.Differences = append(v.Differences, Difference{Claim: pathText(r.host), Wants: wants, Has: jsonText(value)})
		}
	}
	v.Fits = len(v.Differences) == 0
	return host, bound, v
}

// Explain says of each rule what claims come to. The first that fits is the one that counts.
func Explain(rules []*Rule, claims map[string]any) []Verdict {
	list := make([]Verdict, 0, len(rules))
	for _, r := range rules {
		_, _, v := r.judge(claims)
		list = append(list, v)
	}
	return list
}

// Match returns what claims give: the first rule that fits, nil if none does, and its grant but for
// the end. Issuer is the issuer's name here.
func Match(issuer string, rules []*Rule, claims map[string]any) (*Rule, access.Grant) {
	for _, r := range rules {
		if host, bound, v := r.judge(claims); v.Fits {
			g := r.grant(issuer, host, claims)
			g.Scopes = g.Scopes.Union(bound)
			return r, g
		}
	}
	return nil, access.Grant{}
}

func (r *Rule) grant(issuer, host string, claims map[string]any) access.Grant {
	subject, _ := scalar(claims["sub"])
	g := access.Grant{
		Kind: "oidc", Issuer: issuer, Rule: r.spec.Name, Subject: clip.ASCII(subject, 128),
		Scopes: slices.Clone(r.scopes), Host: host, TTL: r.spec.TTL,
	}
	if r.Machines() {
		g.Owner, g.Forget = issuer+"/"+plain(subject), r.spec.Forget
	}
	return g
}

// plain is a subject as it is, if it is a line of the length that OpenID allows, and else its hash.
func plain(subject string) string {
	if len(subject) > 255 || !utf8.ValidString(subject) || strings.ContainsFunc(subject, unicode.IsControl) {
		return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(subject)))
	}
	return subject
}

// Shown is what a JWT gives that is shown as it is: all that its grant has, but to follow. Who follows
// has to have a name that belongs to him.
func Shown(g access.Grant) access.Grant {
	if !follows(g.Scopes) {
		return g
	}
	var rest scope.Set
	for _, s := range g.Scopes {
		if s.Kind != scope.Follow {
			rest = append(rest, s)
		}
	}
	g.Scopes, g.Host = rest.Union(scope.Set{{Kind: scope.Pull}}), ""
	return g
}
