package serverconfig

import (
	"errors"
	"fmt"

	"narwharf/signing/access/certificate"
	"narwharf/signing/access/rule"
)

// Certificate is a section [[access.certificate]]: what clients' certificates give.
type Certificate struct {
	Name      string         `toml:"name"`
	Claims    map[string]any `toml:"claims"`
	Scopes    []string       `toml:"scopes"`
	HostClaim string         `toml:"host_claim"`
	Hosts     any            `toml:"hosts"` // a text or a list of them
}

// checkCertificates checks the sections [[access.certificate]].
func (c *Config) checkCertificates() (err error) {
	written := make([]Rule, len(c.Access.Certificates))
	for i, r := range c.Access.Certificates {
		written[i] = Rule{Name: r.Name, Claims: r.Claims, Scopes: r.Scopes, HostClaim: r.HostClaim, Hosts: r.Hosts}
	}
	if len(written) > 0 && c.TLS.ClientCA == "" {
		return errors.New("access.certificate: no client can show one: name the authorities in tls.client_ca")
	}
	if c.Access.certificates, err = readRules(written, certificate.Check); err != nil {
		return fmt.Errorf("access.certificate: %w", err)
	}
	return nil
}

// CertificateRules say what clients' certificates give.
func (c *Config) CertificateRules() []*rule.Rule { return c.Access.certificates }
