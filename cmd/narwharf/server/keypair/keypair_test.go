package keypair

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// made is a certificate in PEM, and its key.
type made struct{ cert, key string }

// make1 makes a certificate that vouches for itself.
func make1(t *testing.T, name string, ends time.Time) made {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: ends, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return made{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))}
}

// folder has the three files.
type folder struct {
	t *testing.T
	Files
}

func newFolder(t *testing.T, m made, ca string) *folder {
	t.Helper()
	dir := t.TempDir()
	f := &folder{t, Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}}
	f.write(f.Cert, m.cert)
	f.write(f.Key, m.key)
	if ca != "" {
		f.ClientCA = filepath.Join(dir, "ca.pem")
		f.write(f.ClientCA, ca)
	}
	return f
}

func (f *folder) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) open() *Source {
	f.t.Helper()
	s, err := Open(f.Files, func(string) error { return nil })
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// shown is the name in the certificate that a client is shown.
func shown(t *testing.T, s *Source) (name, protocol string) {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		_ = tls.Server(server, s.Config()).Handshake()
		_, _ = io.Copy(io.Discard, server)
	}()
	c := tls.Client(client, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // of a test
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	state := c.ConnectionState()
	return state.PeerCertificates[0].Subject.CommonName, state.NegotiatedProtocol
}

func TestNewPair(t *testing.T) {
	later := time.Now().Add(time.Hour)
	one, two := make1(t, "one", later), make1(t, "two", later)
	f := newFolder(t, one, "")
	s := f.open()
	if name, protocol := shown(t, s); name != "one" || protocol != "h2" {
		t.Errorf("shown %s, %s", name, protocol)
	}
	if names := s.Names(); len(names) != 1 || names[0] != "one" || s.Ends().Before(time.Now()) {
		t.Errorf("%v until %v", names, s.Ends())
	}
	f.write(f.Cert, two.cert) // half of a renewal
	if news, err := s.tick(); news {
		t.Errorf("the first look tells: %v", err)
	}
	if name, _ := shown(t, s); name != "one" {
		t.Errorf("half of a renewal: %s is shown", name)
	}
	f.write(f.Key, two.key)
	if news, err := s.tick(); !news || err != nil {
		t.Errorf("%v, %v", news, err)
	}
	if name, _ := shown(t, s); name != "two" {
		t.Errorf("%s is shown", name)
	}
	if news, err := s.tick(); news || err != nil {
		t.Errorf("nothing changed: %v, %v", news, err)
	}
}

// What is of no use leaves the old pair there, and is told once, at the second look.
func TestBadPair(t *testing.T) {
	one := make1(t, "one", time.Now().Add(time.Hour))
	for name, c := range map[string]struct {
		spoil func(f *folder)
		words string
	}{
		"cert of another": {func(f *folder) { f.write(f.Cert, make1(t, "x", time.Now().Add(time.Hour)).cert) }, "does not match"},
		"no PEM":          {func(f *folder) { f.write(f.Key, "secret") }, "key.pem"},
		"empty":           {func(f *folder) { f.write(f.Cert, "") }, "cert.pem"},
		"gone":            {func(f *folder) { _ = os.Remove(f.Cert) }, "no such file"},
		"no authorities":  {func(f *folder) { f.write(f.ClientCA, "none") }, "ca.pem"},
		"ended": {func(f *folder) {
			m := make1(t, "x", time.Now().Add(-time.Minute))
			f.write(f.Cert, m.cert)
			f.write(f.Key, m.key)
		}, "ended on"},
		"another can read": {func(f *folder) { f.write(f.Key, one.key+"\n") }, "everybody"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFolder(t, one, one.cert)
			s := f.open()
			if name == "another can read" {
				s.check = func(string) error { return errors.New("everybody can read it") }
			}
			c.spoil(f)
			var told []error
			for range 4 {
				if news, err := s.tick(); news {
					told = append(told, err)
				}
			}
			if len(told) != 1 || told[0] == nil || !strings.Contains(told[0].Error(), c.words) || strings.Contains(told[0].Error(), "BEGIN") {
				t.Errorf("told %v", told)
			}
			if is, _ := shown(t, s); is != "one" {
				t.Errorf("%s is shown", is)
			}
			if changed, err := s.Reload(f.Files); changed || err == nil {
				t.Errorf("SIGHUP: %v, %v", changed, err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	f := newFolder(t, make1(t, "one", time.Now().Add(time.Hour)), "")
	if _, err := Open(Files{Cert: f.Cert, Key: f.Key + "x"}, func(string) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := Open(f.Files, func(string) error { return errors.New("everybody can read it") }); err == nil {
		t.Error("a key that everybody can read")
	}
	// One that has ended is better than none: the alarm says so.
	old := newFolder(t, make1(t, "old", time.Now().Add(-time.Hour)), "")
	if s := old.open(); !s.Ends().Before(time.Now()) {
		t.Error("it has not ended")
	}
}

// Other names after SIGHUP, and the old names where those are of no use.
func TestReload(t *testing.T) {
	later := time.Now().Add(time.Hour)
	one, two := newFolder(t, make1(t, "one", later), ""), newFolder(t, make1(t, "two", later), make1(t, "ca", later).cert)
	s := one.open()
	if s.Authorities() != nil {
		t.Error("authorities out of nowhere")
	}
	if changed, err := s.Reload(two.Files); !changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
	if name, _ := shown(t, s); name != "two" || s.Authorities() == nil {
		t.Errorf("%s is shown", name)
	}
	if changed, err := s.Reload(Files{Cert: "/nowhere", Key: "/nowhere"}); changed || err == nil {
		t.Errorf("%v, %v", changed, err)
	}
	if news, err := s.tick(); news {
		t.Errorf("after a SIGHUP that failed the old files are good: %v", err)
	}
}

func TestWatch(t *testing.T) {
	later := time.Now().Add(time.Hour)
	f := newFolder(t, make1(t, "one", later), "")
	s := f.open()
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan error, 8), make(chan struct{})
	go func() {
		s.Watch(ctx, 5*time.Millisecond, func(err error) { told <- err })
		close(done)
	}()
	two := make1(t, "two", later)
	f.write(f.Cert, two.cert)
	f.write(f.Key, two.key)
	for { // it may have seen the half twice
		if err := <-told; err == nil {
			break
		}
	}
	if name, _ := shown(t, s); name != "two" {
		t.Errorf("%s is shown", name)
	}
	cancel()
	<-done
}

// A certificate that is about to end is an alarm, at once and after a change.
func TestEndsSoon(t *testing.T) {
	var none *Keeper
	none.Tend(t.Context(), Around{})
	none.Register(nil)
	none.Reread(t.Context(), Files{}, nil, nil, Around{})
	if _, ok := none.Client(nil); ok {
		t.Error("a certificate without TLS")
	}
	if k, err := Keep(Files{}, nil, nil, nil); k != nil || err != nil || k.Names() != nil {
		t.Errorf("%v, %v", k, err)
	}
	f := newFolder(t, make1(t, "one", time.Now().Add(6*24*time.Hour)), "")
	k, err := Keep(f.Files, func(string) error { return nil }, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	texts := make(chan string, 8)
	alarm := Around{Alarm: func(_ context.Context, text string) error {
		texts <- text
		return nil
	}, End: func(func([]*x509.Certificate) bool) int { return 0 }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Tend(ctx, alarm); close(done) }()
	if got := <-texts; !strings.HasPrefix(got, "the certificate in use ends on ") {
		t.Error(got)
	}
	cancel()
	<-done
	long := make1(t, "one", time.Now().Add(60*24*time.Hour))
	f.write(f.Cert, long.cert)
	k.Reread(t.Context(), f.Files, nil, nil, alarm)
	if got := <-texts; !strings.Contains(got, "stays in use") {
		t.Error(got)
	}
	f.write(f.Key, long.key)
	k.Reread(t.Context(), f.Files, nil, nil, alarm)
	if got := <-texts; got != "" {
		t.Errorf("it is not over: %s", got)
	}
	k.Reread(t.Context(), f.Files, nil, errors.New("line 3"), alarm)
	if got := <-texts; got != "the old certificate stays in use: line 3" {
		t.Error(got)
	}
	registry := prometheus.NewRegistry()
	k.Register(registry)
	if all, err := registry.Gather(); err != nil || len(all) != 1 || int64(all[0].GetMetric()[0].GetGauge().GetValue()) != k.Ends().Unix() {
		t.Errorf("%v, %v", all, err)
	}
}
