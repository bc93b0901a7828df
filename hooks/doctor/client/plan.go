package client

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"narwharf/hooks/login/netrc"
	"narwharf/hooks/nixconf"
	"narwharf/signing"
)

// A Plan is what this machine needs to substitute from a cache.
type Plan struct {
	URL   string   `json:"url"`
	File  string   `json:"file,omitempty"` // of nix.conf lines; "" where they are to be put somewhere by hand
	Lines []string `json:"lines"`
	Netrc string   `json:"netrc,omitempty"` // that gets the password; "" for none
	NixOS []string `json:"nixos,omitempty"` // for its configuration, where that makes nix.conf
	Why   string   `json:"why,omitempty"`   // nothing is written
	Then  []string `json:"type,omitempty"`  // to type afterwards
}

// NewPlan says where the lines for a cache go on this machine. mine is a netrc file of the user's.
func NewPlan(m *nixconf.Machine, url string, keys []signing.PublicKey, private bool, mine string) (*Plan, error) {
	p := &Plan{URL: nixconf.Base(url), Lines: []string{"extra-substituters = " + nixconf.Base(url)}}
	if len(keys) > 0 {
		p.Lines = append(p.Lines, "extra-trusted-public-keys = "+texts(keys))
	}
	file, refused := m.SystemFile()
	switch {
	case m.IsNixOS():
		p.nixos(keys, private)
	case m.UID == 0 && refused != nil:
		p.Why = refused.Error()
	case m.UID == 0:
		p.File, p.Then = file, []string{"systemctl restart nix-daemon   # where it runs"}
		if private {
			p.Netrc = m.Netrc()
		}
	case !m.Trusted():
		return nil, fmt.Errorf("nix-daemon takes no substituter from %s, who is not in trusted-users: sudo narwharf use %s", m.User, url)
	default:
		p.File = m.MyConf()
		if private {
			p.myNetrc(m, mine)
		}
	}
	return p, nil
}

func texts(keys []signing.PublicKey) string {
	list := make([]string, 0, len(keys))
	for _, k := range keys {
		list = append(list, k.String())
	}
	return strings.Join(list, " ")
}

// myNetrc is where a user's password goes: the file that Nix reads already, if the user named it, else his own, which
// is then the only one that it reads.
func (p *Plan) myNetrc(m *nixconf.Machine, mine string) {
	if _, said := m.Mine.Said("netrc-file"); said {
		p.Netrc = m.Netrc()
		return
	}
	p.Netrc = mine
	p.Lines = append(p.Lines, "netrc-file = "+mine)
}

func (p *Plan) nixos(keys []signing.PublicKey, private bool) {
	p.Why = "the configuration of NixOS makes nix.conf: put these lines there"
	quoted := make([]string, 0, len(keys))
	for _, k := range keys {
		quoted = append(quoted, fmt.Sprintf("%q", k.String()))
	}
	p.NixOS = []string{
		"nix.settings = {",
		fmt.Sprintf("  extra-substituters = [ %q ];", p.URL),
		fmt.Sprintf("  extra-trusted-public-keys = [ %s ];", strings.Join(quoted, " ")),
		"};",
	}
	p.Then = []string{"nixos-rebuild switch"}
	if private {
		p.Then = append(p.Then, "sudo narwharf login "+p.URL+" --system   # the password, in /etc/nix/netrc")
	}
}

// Write does what the plan says, with a password where that is needed. It tells whether anything changed.
func (p *Plan) Write(host, password string) (changed bool, err error) {
	if p.File == "" {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(p.File), 0o755); err != nil {
		return false, err
	}
	if p.Netrc != "" { // first, so that nix.conf names no file that is not there
		if is, err := netrc.Password(p.Netrc, host); err != nil || is != password {
			if err := netrc.Set(p.Netrc, host, "narwharf", password); err != nil {
				return false, err
			}
			changed = true
		}
	}
	written, err := nixconf.Write(p.File, p.URL, p.Lines)
	return changed || written, err
}
