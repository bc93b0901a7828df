package serverconfig

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/configfile"
	"narwharf/signing/access/rule"
)

// OIDC is a section [[access.oidc]]: an issuer whose JWTs are taken, and what they give.
type OIDC struct {
	Name             string `toml:"name"`
	Issuer           string `toml:"issuer"`
	Audience         string `toml:"audience"` // after Load there is one
	PrivateAddresses bool   `toml:"private_addresses"`
	ClientID         string `toml:"client_id"`
	ClientSecretFile string `toml:"client_secret_file"`
	Rules            []Rule `toml:"rules"`

	rules []*rule.Rule
}

// Rule is a section [[access.oidc.rules]].
type Rule struct {
	Name        string              `toml:"name"`
	Claims      map[string]any      `toml:"claims"`
	Scopes      []string            `toml:"scopes"`
	TTL         configfile.Duration `toml:"ttl"`
	HostClaim   string              `toml:"host_claim"`
	Hosts       any                 `toml:"hosts"` // a text or a list of them
	ForgetAfter configfile.Duration `toml:"forget_after"`
}

// Checked are its rules.
func (o *OIDC) Checked() []*rule.Rule { return o.rules }

// ClientSecret is what client_secret_file holds, "" if it is not given.
func (o *OIDC) ClientSecret() (string, error) {
	if o.ClientSecretFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(o.ClientSecretFile)
	if err != nil {
		return "", fmt.Errorf("access.oidc %s: client_secret_file: %w", o.Name, err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" || strings.ContainsAny(secret, "\n\r") {
		return "", fmt.Errorf("access.oidc %s: client_secret_file: %s does not hold one secret and nothing else", o.Name, o.ClientSecretFile)
	}
	return secret, nil
}

// kinds begin the names of grants that no issuer's rules give: ssh/hosts.
var kinds = []string{"ssh", "aws", "certificate", "session"}

// checkOIDC checks the sections [[access.oidc]].
func (c *Config) checkOIDC() error {
	names, issuers := map[string]bool{}, map[string]bool{}
	for i := range c.Access.OIDC {
		o := &c.Access.OIDC[i]
		if err := rule.CheckName(o.Name); err != nil {
			return fmt.Errorf("access.oidc: section %d: %w", i+1, err)
		}
		err := c.checkIssuer(o)
		switch {
		case err != nil:
		case slices.Contains(kinds, o.Name):
			err = errors.New("the name is kept for credentials that are no JWTs: take another")
		case names[o.Name]:
			err = errors.New("another section has that name")
		case issuers[o.Issuer]:
			err = errors.New("another section has that issuer: put the rules of both into one")
		}
		if err != nil {
			return fmt.Errorf("access.oidc %s: %w", o.Name, err)
		}
		names[o.Name], issuers[o.Issuer] = true, true
	}
	return nil
}

func (c *Config) checkIssuer(o *OIDC) error {
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("issuer: %q is not an https URL like https://token.actions.githubusercontent.com, as it stands in iss of its JWTs", o.Issuer)
	}
	if o.Audience == "" {
		if c.publicURL == nil {
			return errors.New("audience is missing, and there is no public_url to take its place: name what JWTs for this server have in aud")
		}
		o.Audience = c.publicURL.String()
	}
	if err := checkAudience(o); err != nil {
		return fmt.Errorf("audience: %w", err)
	}
	if o.ClientSecretFile != "" {
		if o.ClientID == "" {
			return errors.New("client_secret_file is given and client_id is not")
		}
		configfile.Abs(c.path, &o.ClientSecretFile)
		if err := configfile.CheckSecret(o.ClientSecretFile, c.AllowReadableSecrets, c.path); err != nil {
			return fmt.Errorf("client_secret_file: %w", err)
		}
	}
	return o.readRules()
}

var ownerURL = regexp.MustCompile(`^https://github\.com/[^/]+/?$`)

// checkAudience refuses audiences that other services have, too: who is shown a JWT could show it here.
func checkAudience(o *OIDC) error {
	const github = "https://token.actions.githubusercontent.com"
	switch a := strings.TrimSuffix(o.Audience, "/"); {
	case (o.Issuer == github || strings.HasPrefix(o.Issuer, github+"/")) && ownerURL.MatchString(o.Audience):
		return fmt.Errorf("%q is what GitHub puts into every JWT of that owner if nothing is said: everybody who is shown one could show it here; leave audience out, and ask for one with public_url", o.Audience)
	case a == "https://management.azure.com" || a == "https://management.core.windows.net":
		return fmt.Errorf("%q is that of Azure's own management: such a JWT is a key to Azure, and is shown to nobody else; register an application, and take its api://… URI", o.Audience)
	}
	return nil
}

func (o *OIDC) readRules() error {
	if len(o.Rules) == 0 {
		return errors.New("it has no rules, and so would give nothing to anybody: add [[access.oidc.rules]]")
	}
	var err error
	if o.rules, err = readRules(o.Rules, func(s rule.Spec) (*rule.Rule, error) { return rule.New(s, o.Issuer) }); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	return nil
}

// readRules checks rules, each by check, and that none has the name of another.
func readRules(written []Rule, check func(rule.Spec) (*rule.Rule, error)) (rules []*rule.Rule, err error) {
	names := map[string]bool{}
	for _, r := range written {
		hosts, err := textsOf(r.Hosts)
		if err != nil {
			return nil, fmt.Errorf("%s: hosts: %w", r.Name, err)
		}
		is, err := check(rule.Spec{
			Name: r.Name, Claims: r.Claims, Scopes: r.Scopes, TTL: time.Duration(r.TTL),
			HostClaim: r.HostClaim, Hosts: hosts, Forget: time.Duration(r.ForgetAfter),
		})
		if err != nil {
			return nil, err
		}
		if names[r.Name] {
			return nil, fmt.Errorf("%s: another rule has that name", r.Name)
		}
		names[r.Name], rules = true, append(rules, is)
	}
	return rules, nil
}

// textsOf reads a text or a list of texts.
func textsOf(value any) (list []string, err error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		for _, x := range v {
			text, ok := x.(string)
			if !ok {
				return nil, fmt.Errorf("%v is no text in quotes", x)
			}
			list = append(list, text)
		}
		return list, nil
	}
	return nil, fmt.Errorf("%v is neither a text like \"web-*\" nor a list of those", value)
}
