// Package greeting has the words with which a server starts.
package greeting

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"narwharf/hooks/serverconfig"
	"narwharf/signing"
	"narwharf/signing/access/scope"
)

// Print prints what a newcomer can type now. names are those in the certificate, if there is one.
func Print(out io.Writer, cfg *serverconfig.Config, listeners []net.Listener, names []string, public []signing.PublicKey) {
	base, curl, others := reachedAt(cfg, listeners, names)
	var keys strings.Builder
	for _, k := range public {
		keys.WriteString(" " + k.String())
	}
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	line("\nNarwharf serves %s", base)
	if cfg.Cache.ServeStore {
		line("Whatever is valid in %s of this machine can be substituted.", cfg.Cache.StoreRoot+cfg.Cache.StoreDir)
	}
	auth, netrc, note := netrcOf(cfg, base)
	open := cfg.AnonymousScopes().Allows(scope.Scope{Kind: scope.Pull})
	read := ""
	if !open {
		read = auth
	}
	line("\nSee it:                   curl%s%s %s/nix-cache-info", curl, read, base)
	if curl == "" {
		line("Upload with any Nix:      XDG_CACHE_HOME=$(mktemp -d) nix copy%s --to '%s?compression=zstd' ./result", auth, base)
		if note != "" {
			line("                          %s", note)
		}
		line("Substitute, in nix.conf:  extra-substituters = %s", base)
		if len(public) > 0 {
			line("                          extra-trusted-public-keys =%s", keys.String())
		} else {
			line("                          (No signing key: clients take only what was signed before it was uploaded.)")
		}
		if !open {
			line("                          netrc-file = %s", netrc)
			line("Reading needs a token here: it is the password in that netrc, on each machine.")
		}
		line("Roll out to hosts:        narwharf promote CHANNEL ./result --server %s (docs/channels.md)", base)
		line("See what hosts do:        %s/ui/ (log in with a token: narwharf token new --name you --scope operate,pull)", base)
	} else {
		line("Nix reaches it by a proxy or by an address: add one to listen, as 127.0.0.1:8080.")
	}
	for _, note := range others {
		line("%s", note)
	}
	line("")
	_, _ = io.WriteString(out, text.String()) // if that fails, nobody reads it
}

// reachedAt is the URL by which the server is reached from here, what curl needs beside
// it, and what else there is to know about it.
func reachedAt(cfg *serverconfig.Config, listeners []net.Listener, names []string) (base, curl string, notes []string) {
	for _, l := range listeners {
		a, ok := l.Addr().(*net.TCPAddr)
		switch {
		case base != "":
		case !ok:
			curl = " --unix-socket " + l.Addr().String()
		default:
			host := a.IP.String()
			if a.IP.IsUnspecified() {
				host = "127.0.0.1"
				if name, err := os.Hostname(); err == nil && cfg.PublicURL == "" && !cfg.TLS.On() {
					notes = append(notes, fmt.Sprintf("From other machines:      http://%s, if they know it by that name", net.JoinHostPort(name, strconv.Itoa(a.Port))))
				}
			}
			scheme := "http://"
			if cfg.TLS.On() {
				scheme, host = "https://", nameFor(host, names)
			}
			base, curl = scheme+net.JoinHostPort(host, strconv.Itoa(a.Port)), ""
			if a.IP.IsLoopback() && cfg.PublicURL == "" {
				notes = append(notes, "Only this machine reaches it: set listen for others (and public_url, behind a proxy).")
			}
		}
	}
	if cfg.PublicURL != "" {
		return strings.TrimRight(cfg.PublicURL, "/"), "", nil
	}
	if base == "" {
		base = "http://localhost"
	}
	return base, curl, notes
}

// nameFor is a host under which a client will take the certificate.
func nameFor(host string, names []string) string {
	for _, name := range names {
		if !slices.Contains(names, host) && !strings.HasPrefix(name, "*") {
			return name
		}
	}
	return host
}

// netrcOf is the flag for the netrc that init made, which may lack the name of the
// server, and its file.
func netrcOf(cfg *serverconfig.Config, base string) (flag, file, note string) {
	file = filepath.Join(cfg.DataDir, "netrc")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "/etc/nix/netrc", "(Uploads need a netrc with a token: narwharf token new --scope push.)"
	}
	u, err := url.Parse(base)
	if err == nil && !strings.Contains("\n"+string(text), "\nmachine "+u.Hostname()+"\n") {
		note = fmt.Sprintf("(That netrc lacks the name: add the lines of localhost for \"machine %s\".)", u.Hostname())
	}
	return " --netrc-file " + file, file, note
}
