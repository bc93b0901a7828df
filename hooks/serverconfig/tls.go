package serverconfig

import (
	"errors"
	"fmt"

	"narwharf/hooks/configfile"
	"narwharf/signing/access/rule"
)

// TLS is with what the addresses of listen speak it; unix sockets never do.
type TLS struct {
	Cert     string `toml:"cert"` // with its chain; "": no TLS
	Key      string `toml:"key"`
	ClientCA string `toml:"client_ca"` // authorities of clients' certificates
}

// On tells whether TLS is spoken.
func (t TLS) On() bool { return t.Cert != "" }

func (c *Config) checkTLS() error {
	t := &c.TLS
	configfile.Abs(c.path, &t.Cert, &t.Key, &t.ClientCA)
	switch {
	case t.Cert == "" && t.Key != "":
		return errors.New("tls.cert is missing: name the file with the certificate of tls.key, and its chain")
	case t.Cert != "" && t.Key == "":
		return errors.New("tls.key is missing: name the file with the secret key of tls.cert")
	case t.Cert == "" && t.ClientCA != "":
		return errors.New("tls.client_ca is given and tls.cert is not: clients can show a certificate to a server that has one")
	case t.On() && c.publicURL != nil && c.publicURL.Scheme != "https":
		return fmt.Errorf("public_url is %s and listen speaks TLS by [tls]: write it as https://", c.PublicURL)
	}
	return nil
}

// CheckTLSKey refuses a file with the secret key that every user of this machine can read.
func (c *Config) CheckTLSKey(name string) error {
	if err := configfile.CheckSecret(name, c.AllowReadableSecrets, c.path); err != nil {
		return fmt.Errorf("tls.key: %w", err)
	}
	return nil
}

// ReloadTLS is the section as the file has it now, and the rules of clients' certificates. Turning TLS on
// or off needs a restart.
func (c *Config) ReloadTLS() (TLS, []*rule.Rule, error) {
	fresh, err := Load(c.path)
	if err != nil {
		return TLS{}, nil, err
	}
	if !fresh.TLS.On() {
		return TLS{}, nil, errors.New("[tls] has gone from the configuration: to speak TLS no more needs a restart")
	}
	return fresh.TLS, fresh.CertificateRules(), nil
}
