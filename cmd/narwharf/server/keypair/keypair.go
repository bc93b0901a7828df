// Package keypair is the certificate with which a server speaks TLS.
//
// Certificate, key and the authorities of clients come from three files, and are one thing: what fits
// together is used, whole, from the next connection on. The files are looked at every few seconds, by
// what they hold: who renews a certificate writes one after the other, by rename or in place, through
// links or not. While they do not fit together, or cannot be read, what was there before stays in use;
// that it did for two looks is told once. Connections that there are keep what they began with, but
// for the certificates of clients, which signing/access/certificate judges at each request.
package keypair

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Files name what is read. All are PEM.
type Files struct {
	Cert, Key string
	ClientCA  string // the authorities whose certificates clients may show; "": none is asked for
}

// Source has the certificate of the moment.
type Source struct {
	check func(key string) error // says what is wrong with who else can read the key
	now   atomic.Pointer[pair]

	mu     sync.Mutex
	files  Files
	failed [][]byte // what the files held at the last look, if that is of no use
	told   bool     // that it is not
}

// pair is what the files held at some moment.
type pair struct {
	texts  [][]byte
	config *tls.Config
	leaf   *x509.Certificate
}

// Open reads the files. check may refuse the file of the key, now and at each look.
func Open(files Files, check func(key string) error) (*Source, error) {
	s := &Source{files: files, check: check}
	p, _, err := s.read()
	if err != nil {
		return nil, err
	}
	s.now.Store(p)
	return s, nil
}

// protocols are those that are offered, the best first.
var protocols = []string{"h2", "http/1.1"}

// Config is for a listener: each handshake takes the certificate of its moment.
func (s *Source) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now.Load().config, nil },
	}
}

// Ends is when the certificate ends; zero if none was opened.
func (s *Source) Ends() time.Time {
	if p := s.now.Load(); p != nil {
		return p.leaf.NotAfter
	}
	return time.Time{}
}

// Names are those that the certificate is for.
func (k *Keeper) Names() []string {
	if k == nil {
		return nil
	}
	return k.Source.Names()
}

// Names are those that the certificate is for.
func (s *Source) Names() []string {
	leaf := s.now.Load().leaf
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// Authorities are those of clients' certificates, nil if there are none.
func (s *Source) Authorities() *x509.CertPool { return s.now.Load().config.ClientCAs }

// Reload looks now, at files that may have other names, and reports whether another certificate is in
// use. After an error the old one is, and the old names hold.
func (s *Source) Reload(files Files) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.files
	s.files = files
	changed, _, err = s.look()
	if s.told = err != nil; s.told {
		s.files = old
	}
	return changed, err
}

// look is for mu's holder. texts is what the files held.
func (s *Source) look() (changed bool, texts [][]byte, err error) {
	p, texts, err := s.read()
	if err != nil {
		return false, texts, err
	}
	if same(p.texts, s.now.Load().texts) {
		s.failed, s.told = nil, false
		return false, texts, nil
	}
	if ends := p.leaf.NotAfter; time.Now().After(ends) { // at the start it is better than nothing
		return false, texts, fmt.Errorf("tls: the new certificate ended on %s", ends.UTC().Format(time.DateTime))
	}
	s.failed, s.told = nil, false
	s.now.Store(p)
	return true, texts, nil
}

// Watch looks at the files every so often until ctx ends. It tells what became of a change: that
// another certificate is in use, or why not.
func (s *Source) Watch(ctx context.Context, every time.Duration, tell func(err error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if news, err := s.tick(); news {
				tell(err)
			}
		}
	}
}

// tick is one look of Watch.
func (s *Source) tick() (news bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed, texts, err := s.look()
	if err == nil {
		return changed, nil
	}
	// The first time it may be half of a renewal.
	news = !s.told && s.failed != nil && same(s.failed, texts)
	s.told = s.told || news
	s.failed = texts
	return news, err
}

// read reads the files. What they hold comes with an error, too, as far as it was read.
func (s *Source) read() (p *pair, texts [][]byte, err error) {
	f := s.files
	texts = make([][]byte, 3)
	if err := s.check(f.Key); err != nil {
		return nil, texts, err
	}
	for i, name := range []string{f.Cert, f.Key, f.ClientCA} {
		if name == "" {
			continue
		}
		if texts[i], err = os.ReadFile(name); err != nil {
			return nil, texts, fmt.Errorf("tls: %w", err)
		}
	}
	p, err = parse(f, texts)
	return p, texts, err
}

func parse(f Files, texts [][]byte) (*pair, error) {
	cert, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return nil, fmt.Errorf("tls: %s and %s: %w", f.Cert, f.Key, err)
	}
	p := &pair{texts: texts, leaf: cert.Leaf, config: &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols, Certificates: []tls.Certificate{cert},
	}}
	if f.ClientCA != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(texts[2]) {
			return nil, fmt.Errorf("tls: %s holds no certificate in PEM", f.ClientCA)
		}
		p.config.ClientCAs, p.config.ClientAuth = pool, tls.VerifyClientCertIfGiven
	}
	return p, nil
}

func same(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }
