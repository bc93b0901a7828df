package serverconfig

import (
	"errors"
	"fmt"
	"os"
	"time"

	"narwharf/hooks/configfile"
	"narwharf/signing/access/awsiam"
	"narwharf/signing/access/hostkey"
	"narwharf/signing/access/rule"
	"narwharf/signing/access/scope"
)

// SSH is the section [access.ssh]: what hosts get that prove who they are by their SSH host keys.
type SSH struct {
	KnownHosts  string              `toml:"known_hosts"`
	Scopes      []string            `toml:"scopes"` // none: keys are not taken
	TTL         configfile.Duration `toml:"ttl"`
	ForgetAfter configfile.Duration `toml:"forget_after"`

	scopes scope.Set
}

// Follows are its scopes, nil if keys are not taken.
func (s *SSH) Follows() scope.Set { return s.scopes }

// List reads the known_hosts file, nil if there is none.
func (s *SSH) List() (*hostkey.List, error) {
	if s.KnownHosts == "" {
		return nil, nil
	}
	text, err := os.ReadFile(s.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("access.ssh.known_hosts: %w", err)
	}
	l, err := hostkey.ParseList(text)
	if err != nil {
		return nil, fmt.Errorf("access.ssh.known_hosts: %s: %w", s.KnownHosts, err)
	}
	return l, nil
}

// AWS is a section [[access.aws]]: a role of AWS whose machines are hosts.
type AWS struct {
	Name        string              `toml:"name"`
	Account     string              `toml:"account"`
	Role        string              `toml:"role"`
	Scopes      []string            `toml:"scopes"`
	Hosts       any                 `toml:"hosts"` // a text or a list of them
	TTL         configfile.Duration `toml:"ttl"`
	ForgetAfter configfile.Duration `toml:"forget_after"`

	scopes scope.Set
	hosts  []string
}

// Follows are its scopes.
func (a *AWS) Follows() scope.Set { return a.scopes }

// Names are the globs of the names that its machines may have.
func (a *AWS) Names() []string { return a.hosts }

// forgetAfter is after which time without a word a machine of a cloud is forgotten, if nothing is said.
const forgetAfter = configfile.Duration(24 * time.Hour)

// checkMachines checks the sections [access.ssh] and [[access.aws]].
func (c *Config) checkMachines() (err error) {
	s := &c.Access.SSH
	configfile.Abs(c.path, &s.KnownHosts)
	switch {
	case len(s.Scopes) == 0 && (s.KnownHosts != "" || s.TTL != 0 || s.ForgetAfter != 0):
		return errors.New(`access.ssh.scopes is missing: say which channels hosts with SSH keys may follow, as scopes = ["follow:web"]`)
	case len(s.Scopes) > 0:
		if s.scopes, err = c.followed(s.Scopes, s.TTL); err != nil {
			return fmt.Errorf("access.ssh: %w", err)
		}
		if _, err := s.List(); err != nil {
			return err
		}
	}
	names := map[string]bool{}
	for i := range c.Access.AWS {
		a := &c.Access.AWS[i]
		if err := c.checkAWS(a); err != nil {
			return fmt.Errorf("access.aws %s: %w", a.Name, err)
		}
		if names[a.Name] {
			return fmt.Errorf("access.aws %s: another section has that name", a.Name)
		}
		names[a.Name] = true
	}
	return nil
}

func (c *Config) checkAWS(a *AWS) (err error) {
	if err := rule.CheckName(a.Name); err != nil {
		return err
	}
	if err := awsiam.CheckRule(a.Account, a.Role); err != nil {
		return err
	}
	if a.hosts, err = textsOf(a.Hosts); err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	if a.ForgetAfter == 0 {
		a.ForgetAfter = forgetAfter
	}
	// What a rule of another kind is refused for, this one is, too.
	if _, err := rule.New(rule.Spec{
		Name: a.Name, Claims: map[string]any{"role": a.Role}, Scopes: a.Scopes, TTL: time.Duration(a.TTL), Hosts: a.hosts, Forget: time.Duration(a.ForgetAfter),
	}, ""); err != nil {
		return err
	}
	a.scopes, err = c.followed(a.Scopes, a.TTL)
	return err
}

// followed reads the scopes of machines.
func (c *Config) followed(scopes []string, ttl configfile.Duration) (scope.Set, error) {
	set, err := scope.ParseSet(scopes)
	if err != nil {
		return nil, fmt.Errorf("scopes: %w", err)
	}
	for _, s := range set {
		if s.Kind != scope.Follow {
			return nil, fmt.Errorf("scopes: %s is not for machines: follow:CHANNEL alone is", s)
		}
	}
	if d := time.Duration(ttl); d != 0 && (d < time.Minute || d > 12*time.Hour) {
		return nil, fmt.Errorf("ttl: %s is not between 1m and 12h", d)
	}
	if c.publicURL == nil {
		return nil, errors.New("public_url is missing: machines sign it, so that a proof for one server is none for another")
	}
	return set, nil
}
