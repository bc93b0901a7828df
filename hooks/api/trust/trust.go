// Package trust is whom a client believes to be its server, and what it shows of itself: TLS.
package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Files are what a client needs. All are PEM, and each may be "".
type Files struct {
	CA string // authorities to trust instead of the system's
	// Cert and Key are a certificate that is shown to servers that ask for one of its authority. They
	// are read again for each connection, so that a new one works at once.
	Cert, Key string
}

// Config is for a client. What is wrong with the files it says now.
func (f Files) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ca: %s holds no PEM certificate", f.CA)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a client's certificate is two files: give both cert_file and key_file")
	}
	if f.Cert == "" {
		return config, nil
	}
	config.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := f.load()
		if err != nil || asked.SupportsCertificate(pair) == nil {
			return pair, err
		}
		return new(tls.Certificate), nil // it asks for those of others: none
	}
	_, err := f.load()
	return config, err
}

func (f Files) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("the client's certificate (%s, %s): %w", f.Cert, f.Key, err)
	}
	return &pair, nil
}
