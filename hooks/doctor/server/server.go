// Package server looks at a server on its own machine: its configuration, keys, disk and store, and
// whether what runs is what the files say.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"narwharf/cache/nixstore"
	"narwharf/hooks/api/trust"
	"narwharf/hooks/doctor"
	"narwharf/hooks/doctor/remote"
	"narwharf/hooks/serverconfig"
	"narwharf/signing"
)

// renewal is when a certificate should have been renewed.
const renewal = 7 * 24 * time.Hour

// Look says what is wrong with the server of a configuration file.
func Look(ctx context.Context, config string) *doctor.Report {
	r := new(doctor.Report)
	cfg, err := serverconfig.Load(config)
	if err != nil {
		r.Fault("config", []string{"narwharf check-config server " + config}, "%v", err)
		return r
	}
	r.OK("config", "%s is well formed", cfg.Path())
	folder(r, cfg)
	r.Disk("disk", cfg.DataDir, doctor.LeastFree)
	keys := keys(r, cfg)
	store(ctx, r, cfg)
	certificate(r, cfg)
	running(ctx, r, cfg, keys)
	return r
}

func folder(r *doctor.Report, cfg *serverconfig.Config) {
	st, err := os.Stat(cfg.DataDir)
	switch {
	case err != nil:
		r.Fault("data-dir", []string{"narwharf init " + cfg.DataDir}, "%v", err)
	case !st.IsDir():
		r.Fault("data-dir", []string{"ls -ld " + cfg.DataDir}, "%s is no folder", cfg.DataDir)
	default:
		r.OK("data-dir", "%s is there", cfg.DataDir)
	}
}

func keys(r *doctor.Report, cfg *serverconfig.Config) (public []signing.PublicKey) {
	signers, err := cfg.LoadSigners()
	switch {
	case err != nil:
		r.Fault("keys", []string{"ls -l " + strings.Join(cfg.Signing.SecretKeyFiles, " ")}, "%v", err)
	case len(signers) == 0:
		r.Warn("keys", []string{"narwharf key generate NAME --out FILE"}, "there is no key: clients take only what was signed before it was uploaded")
	default:
		for _, s := range signers {
			public = append(public, s.Public())
		}
		r.OK("keys", "%d keys sign", len(signers))
	}
	return public
}

func store(ctx context.Context, r *doctor.Report, cfg *serverconfig.Config) {
	if !cfg.Cache.ServeStore {
		return
	}
	s, err := nixstore.Open(nixstore.Options{StoreDir: cfg.Cache.StoreDir, Root: cfg.Cache.StoreRoot})
	if err == nil {
		_, err = s.Version(ctx)
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		r.Fault("store", []string{"systemctl status nix-daemon.socket", "ls -l /nix/var/nix/db"}, "as user %d: %v", os.Geteuid(), err)
		return
	}
	r.OK("store", "the machine's own store can be read")
}

func certificate(r *doctor.Report, cfg *serverconfig.Config) {
	if !cfg.TLS.On() {
		return
	}
	pair, err := tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key)
	if err != nil {
		r.Fault("tls", []string{"ls -l " + cfg.TLS.Cert + " " + cfg.TLS.Key}, "%v", err)
		return
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	fix := []string{"openssl x509 -noout -dates -in " + cfg.TLS.Cert}
	switch left := time.Until(leafEnd(leaf)); {
	case err != nil:
		r.Fault("tls", fix, "%v", err)
	case left < 0:
		r.Fault("tls", fix, "the certificate in %s has ended %s", cfg.TLS.Cert, leaf.NotAfter.Format(time.DateTime))
	case left < renewal:
		r.Warn("tls", fix, "the certificate in %s ends %s: does something renew it?", cfg.TLS.Cert, leaf.NotAfter.Format(time.DateTime))
	default:
		r.OK("tls", "the certificate is good until %s", leaf.NotAfter.Format(time.DateOnly))
	}
}

func leafEnd(leaf *x509.Certificate) time.Time {
	if leaf == nil {
		return time.Time{}
	}
	return leaf.NotAfter
}

// running asks the server where it listens, and then where clients find it.
func running(ctx context.Context, r *doctor.Report, cfg *serverconfig.Config, keys []signing.PublicKey) {
	at := local(cfg)
	if at == "" {
		why := "it listens on unix sockets alone, which are not asked"
		if cfg.TLS.On() {
			why = "it speaks TLS, and its certificate is for other names than this machine's own: public_url is asked"
		}
		r.Note("running", "%s", why)
	} else if !asked(ctx, r, "running", at, cfg, keys) {
		return
	}
	if cfg.PublicURL == "" {
		r.Note("public-url", "public_url is not set: what is in front of the server is not looked at")
		return
	}
	if !asked(ctx, r, "public-url", cfg.PublicURL, cfg, keys) {
		return
	}
	if c, err := remote.New(cfg.PublicURL, trust.Files{}); err == nil {
		c.Way(ctx, r)
	}
}

// local is where the server can be asked on this machine, "" if nowhere.
func local(cfg *serverconfig.Config) string {
	for _, address := range cfg.Listen {
		host, port, err := net.SplitHostPort(address)
		if err != nil || cfg.TLS.On() || port == "0" {
			continue // its certificate has another name
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		return "http://" + net.JoinHostPort(host, port)
	}
	return ""
}

// asked tells whether a server answers there, which has to be the one of this configuration.
func asked(ctx context.Context, r *doctor.Report, check, at string, cfg *serverconfig.Config, keys []signing.PublicKey) bool {
	c, err := remote.New(at, trust.Files{})
	if err == nil {
		err = c.Ask(ctx)
	}
	if err != nil {
		r.Fault(check, []string{"systemctl status narwharf", "journalctl -u narwharf -n 50", "curl -v " + at + "/readyz"}, "%v", err)
		return false
	}
	if err := c.Ready(ctx); err != nil {
		r.Fault(check, []string{"curl -s " + at + "/readyz"}, "%v", err)
		return false
	}
	said, err := c.Keys(ctx)
	if err != nil {
		r.Fault(check, []string{"curl -s " + at + "/pubkey"}, "%v", err)
		return false
	}
	for _, k := range keys {
		if !slices.ContainsFunc(said, func(s signing.PublicKey) bool { return s.String() == k.String() }) {
			r.Fault(check, []string{"systemctl reload narwharf"}, "what answers at %s does not sign with %s: it has not read %s since that changed, or is another server", at, k.Name(), cfg.Path())
			return false
		}
	}
	r.OK(check, "%s", fmt.Sprintf("%s answers, and signs with the keys of %s", at, cfg.Path()))
	return true
}
