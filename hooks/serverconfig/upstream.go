package serverconfig

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/signing"
	"narwharf/signing/access/scope"
)

// Upstream is a section [[upstream]]: a cache behind this one.
type Upstream struct {
	URL         string   `toml:"url"`
	PublicKeys  []string `toml:"public_keys"`
	PullThrough *bool    `toml:"pull_through"`
	Keep        string   `toml:"keep"`
	TokenFile   string   `toml:"token_file"`
	Sign        bool     `toml:"sign"`
	Public      bool     `toml:"public"`
	// Rate is how many bytes of NARs may come of it in a second; 0: no bound.
	Rate configfile.Size `toml:"rate"`

	url  *url.URL
	keys []signing.PublicKey
}

// The values of keep.
const (
	keepPromoted = "promoted"
	keepNever    = "never"
)

// Where is its URL, parsed.
func (u *Upstream) Where() *url.URL { return u.url }

// Keys are those that have to have signed its paths.
func (u *Upstream) Keys() []signing.PublicKey { return u.keys }

// Pulls tells whether its NARs go out through this server; if nothing is said they do.
func (u *Upstream) Pulls() bool { return u.PullThrough == nil || *u.PullThrough }

// Keeps tells whether what promoted releases need of it is fetched.
func (u *Upstream) Keeps() bool { return u.Keep != keepNever }

// Token is what token_file holds, "" if it is not given.
func (u *Upstream) Token() (string, error) {
	if u.TokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(u.TokenFile)
	if err != nil {
		return "", fmt.Errorf("upstream %s: token_file: %w", u.URL, err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsAny(token, " \t\n\r") {
		return "", fmt.Errorf("upstream %s: token_file: %s does not hold one token and nothing else", u.URL, u.TokenFile)
	}
	return token, nil
}

// checkUpstreams checks the sections [[upstream]].
func (c *Config) checkUpstreams() error {
	seen, urls := make(map[string]bool), make([]string, len(c.Upstreams))
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		urls[i] = u.URL
		if u.URL == "" {
			return fmt.Errorf("upstream: section %d has no url", i+1)
		}
		if err := c.checkUpstream(u); err != nil {
			return fmt.Errorf("upstream %s: %w", u.URL, err)
		}
		switch at := u.url.String(); {
		case seen[at]:
			return fmt.Errorf("upstream %s: it is there twice", u.URL)
		case c.publicURL != nil && at == c.publicURL.String():
			return fmt.Errorf("upstream %s: this is public_url, this server itself", u.URL)
		default:
			seen[at] = true
		}
	}
	at, err := c.Mirror.Check(urls)
	if at >= 0 {
		c.centre = &c.Upstreams[at]
	}
	return err
}

// Centre is the upstream of [mirror], nil if none of its channels are followed.
func (c *Config) Centre() *Upstream { return c.centre }

func (c *Config) checkUpstream(u *Upstream) (err error) {
	if u.url, err = api.ParseURL(u.URL); err != nil {
		return fmt.Errorf("url: %w (a token goes into token_file)", err)
	}
	if len(u.PublicKeys) == 0 {
		return errors.New("public_keys is empty: nothing of it would count; give those that its clients trust, as [\"cache.nixos.org-1:…\"]")
	}
	for _, k := range u.PublicKeys {
		key, err := signing.ParsePublicKey(k)
		if err != nil {
			return fmt.Errorf("public_keys: %w", err)
		}
		u.keys = append(u.keys, key)
	}
	if u.Rate < 0 || u.Rate > 0 && u.Rate < 1<<10 {
		return fmt.Errorf("rate: %d bytes a second is too little to be meant; 0 is no bound", u.Rate)
	}
	switch u.Keep {
	case "":
		u.Keep = keepPromoted
	case keepPromoted, keepNever:
	default:
		return fmt.Errorf("keep: %q is neither %q nor %q", u.Keep, keepPromoted, keepNever)
	}
	if u.TokenFile == "" {
		return nil
	}
	configfile.Abs(c.path, &u.TokenFile)
	if err := configfile.CheckSecret(u.TokenFile, c.AllowReadableSecrets, c.path); err != nil {
		return fmt.Errorf("token_file: %w", err)
	}
	if c.anonymous.Allows(scope.Scope{Kind: scope.Pull}) && !u.Public {
		return errors.New("it has a token_file, and access.anonymous has pull: everybody could read here what needs a token there; take pull out of access.anonymous, or say public = true if that is meant")
	}
	return nil
}
