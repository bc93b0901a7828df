// Package client holds what Nix on this machine is configured to do beside what a cache says, and
// finds out why Nix would not substitute from it. It reads; [Plan] says what would have to be written.
package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"narwharf/hooks/doctor"
	"narwharf/hooks/doctor/remote"
	"narwharf/hooks/login/netrc"
	"narwharf/hooks/nixconf"
	"narwharf/narinfo"
	"narwharf/signing"
)

// A Client is this machine before a cache.
type Client struct {
	Machine *nixconf.Machine
	Cache   *remote.Cache
	Path    string // to verify; "" for the one that every Narwharf has
	Home    string // of the user

	conf *nixconf.Conf // what counts
	keys []signing.PublicKey
	info *narinfo.Info
}

// Look says what is wrong.
func (c *Client) Look(ctx context.Context) *doctor.Report {
	r := new(doctor.Report)
	c.conf = c.Machine.Effective()
	if c.reach(ctx, r) {
		c.verify(ctx, r)
		c.Cache.Way(ctx, r)
	}
	c.substituter(r)
	c.trust(r)
	c.remembers(ctx, r)
	c.restarted(r)
	return r
}

// use is the line that sets this machine up.
func (c *Client) use(more string) []string {
	line := "narwharf use " + c.Cache.URL.String() + more
	if c.Machine.Daemon && !c.Machine.Trusted() || c.Machine.UID == 0 {
		line = "sudo " + line
	}
	return []string{line}
}

// reach finds out whether the cache answers, with the password that Nix has.
func (c *Client) reach(ctx context.Context, r *doctor.Report) bool {
	err := c.Cache.Ask(ctx)
	if err == nil {
		_, err = c.Cache.Narinfo(ctx, c.Path)
	}
	if err != nil && !errors.Is(err, remote.ErrNoRight) && c.Cache.Ask(ctx) != nil {
		r.Fault("server", []string{"curl -v " + c.Cache.URL.String() + "/nix-cache-info"}, "%v", err)
		return false
	}
	private := errors.Is(err, remote.ErrNoRight)
	r.OK("server", "%s answers", c.Cache.URL)
	file := c.Machine.Netrc()
	password, err := passwordOf(file, c.Cache.URL.Hostname())
	switch {
	case errors.Is(err, os.ErrPermission):
		r.Note("netrc", "%s cannot be read by %s: as root the doctor sees more", file, c.Machine.User)
		return !private
	case err != nil:
		r.Fault("netrc", []string{"ls -l " + file}, "%v", err)
		return !private
	case password == "" && private:
		c.noPassword(r, file)
		return false
	case password == "":
		return true
	case len(password) > netrc.MaxPassword:
		r.Fault("netrc", []string{"narwharf login " + c.Cache.URL.String() + " --system"}, "the password in %s has %d bytes: Nix sends none of more than %d and says nothing", file, len(password), netrc.MaxPassword)
		return !private
	}
	c.Cache.Password = password
	switch _, err := c.Cache.Narinfo(ctx, c.Path); {
	case errors.Is(err, remote.ErrNoRight) && private:
		r.Fault("netrc", []string{"narwharf login " + c.Cache.URL.String() + " --system"}, "the server refuses the password that %s has for %s: %v", file, c.Cache.URL.Hostname(), err)
		return false
	case errors.Is(err, remote.ErrNoRight):
		r.Fault("netrc", []string{"narwharf logout " + c.Cache.URL.String()}, "anybody may read this cache, but Nix sends the password in %s, which the server refuses", file)
		c.Cache.Password = ""
	default:
		r.OK("netrc", "the password in %s is good", file)
	}
	return true
}

func passwordOf(file, host string) (string, error) {
	password, err := netrc.Password(file, host)
	if password == "" && err == nil {
		password, err = netrc.Password(file, "") // default
	}
	return password, err
}

// noPassword says why Nix has none, though there may be one.
func (c *Client) noPassword(r *doctor.Report, file string) {
	host := c.Cache.URL.Hostname()
	fix := c.use(" --netrc")
	if mine, said := c.Machine.Mine.Said("netrc-file"); said && c.Machine.Daemon && !c.Machine.Trusted() {
		r.Fault("netrc", fix, "netrc-file in %s does nothing: nix-daemon downloads, and takes no such setting from %s; it reads %s, which has no password for %s", mine, c.Machine.User, file, host)
		return
	}
	for _, other := range []string{filepath.Join(c.Home, ".netrc"), filepath.Join(c.Home, ".config", "narwharf", "netrc")} {
		if p, err := passwordOf(other, host); p != "" && err == nil && other != file {
			r.Fault("netrc", fix, "%s has a password for %s, but Nix does not read it: it reads %s alone", other, host, file)
			return
		}
	}
	r.Fault("netrc", append([]string{"narwharf login " + c.Cache.URL.String()}, fix...), "reading this cache takes a token, and %s has no password for %s (a machine there is a name without a port)", file, host)
}

// verify reads the keys, and a path that they should have signed.
func (c *Client) verify(ctx context.Context, r *doctor.Report) {
	var err error
	if c.keys, err = c.Cache.Keys(ctx); err != nil {
		r.Note("keys", "the cache names no keys (%v): those that you trust have to be known from elsewhere", err)
	}
	if c.info, err = c.Cache.Narinfo(ctx, c.Path); err != nil {
		r.Note("path", "no path could be tried (%v): name one that the cache has by --path", err)
		return
	}
	if err := c.Cache.Verify(ctx, c.info); err != nil {
		r.Fault("path", []string{"curl -sI " + c.Cache.URL.String() + "/" + c.info.URL}, "%v", err)
		return
	}
	if _, ok := signing.VerifyAny(c.info.AppendFingerprint(nil), c.info.Sigs, c.keys); !ok && len(c.keys) > 0 {
		r.Fault("path", []string{"curl -s " + c.Cache.URL.String() + "/pubkey", "curl -s " + c.Cache.URL.String() + "/" + c.info.Path.Hash() + ".narinfo"},
			"%s is not signed by a key that the cache names: is something in front that keeps one of the two?", c.info.Path)
		return
	}
	r.OK("path", "%s comes, and its signature is good", c.info.Path.In(c.info.StoreDir))
}

// substituter looks whether Nix asks this cache at all.
func (c *Client) substituter(r *doctor.Report) {
	m, url := c.Machine, c.Cache.URL.String()
	mine, _ := m.Mine.Said("substituters")
	switch {
	case !c.conf.Is("substitute"):
		file, _ := c.conf.Said("substitute")
		r.Fault("substituter", []string{"substitute = true   # in " + file}, "substitute = false in %s: Nix asks no cache at all", file)
	case nixconf.Names(c.conf.List("substituters"), url):
		r.OK("substituter", "Nix asks %s", url)
	case nixconf.Names(c.conf.List("substituters"), url+nixconf.LAN):
		r.OK("substituter", "Nix asks %s", url+nixconf.LAN)
	case nixconf.Names(m.Mine.List("substituters"), url):
		r.Fault("substituter", c.use(""), "%s names %s, but nix-daemon does not trust %s with that: it is not in trusted-substituters of %s, and %[3]s not in trusted-users (%[5]s)",
			mine, url, m.User, m.NixConf(), strings.Join(m.System.List("trusted-users"), " "))
	default:
		r.Fault("substituter", c.use(""), "no nix.conf names %s", url)
	}
	if m.Daemon {
		word := "not "
		if m.Trusted() {
			word = ""
		}
		r.Note("trusted-users", "nix-daemon does the work, and %s is %sin trusted-users", m.User, word)
	}
}

// trust looks whether Nix takes what the cache signs.
func (c *Client) trust(r *doctor.Report) {
	var trusted []signing.PublicKey
	file, _ := c.conf.Said("trusted-public-keys")
	for _, text := range c.conf.List("trusted-public-keys") {
		k, err := signing.ParsePublicKey(text)
		if err != nil {
			r.Fault("keys", []string{"curl -s " + c.Cache.URL.String() + "/pubkey"}, "trusted-public-keys in %s: %v", file, err)
			continue
		}
		trusted = append(trusted, k)
	}
	if c.info == nil {
		return
	}
	if k, ok := signing.VerifyAny(c.info.AppendFingerprint(nil), c.info.Sigs, trusted); ok {
		r.OK("signature", "Nix takes what %s signed", k.Name())
		return
	}
	if !c.conf.Is("require-sigs") {
		r.Warn("signature", c.use(""), "require-sigs = false: Nix takes whatever this cache, or anything on the way, sends")
		return
	}
	text := "Nix refuses what this cache signs: no key of trusted-public-keys made one of the signatures"
	for _, k := range c.keys {
		if slices.ContainsFunc(trusted, func(t signing.PublicKey) bool { return t.Name() == k.Name() }) {
			text = fmt.Sprintf("Nix refuses what this cache signs: trusted-public-keys has another key by the name of %s than the cache. Nix keeps one key of a name: take the old one out", k.Name())
		}
	}
	if _, said := c.Machine.Mine.Said("trusted-public-keys"); said && c.Machine.Daemon && !c.Machine.Trusted() {
		text += "; the keys in " + c.Machine.MyConf() + " do nothing, since nix-daemon does not trust " + c.Machine.User + " with that"
	}
	r.Fault("signature", c.use(""), "%s", text)
}
