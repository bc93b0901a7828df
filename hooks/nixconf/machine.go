package nixconf

import (
	"cmp"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
)

// A Machine is this one, as a user of it finds it.
type Machine struct {
	User   string
	Groups []string
	UID    int

	Dir    string // of nix.conf: /etc/nix
	Mine   *Conf  // the user's files alone, and NIX_CONFIG
	System *Conf  // nix.conf of Dir, and what root's own files add where the daemon works
	Daemon bool   // nix-daemon does the work, not the user's own process

	getenv func(string) string
	home   string
}

// Load reads the configuration of this machine.
func Load() (*Machine, error) {
	u, err := user.Current()
	if err != nil {
		return nil, err
	}
	m := &Machine{User: u.Username, UID: os.Getuid(), getenv: os.Getenv, home: cmp.Or(os.Getenv("HOME"), u.HomeDir)}
	ids, _ := u.GroupIds()
	for _, id := range ids {
		if g, err := user.LookupGroupId(id); err == nil {
			m.Groups = append(m.Groups, g.Name)
		}
	}
	return m, m.load()
}

func (m *Machine) load() error {
	m.Dir = cmp.Or(m.getenv("NIX_CONF_DIR"), "/etc/nix")
	m.System, m.Mine, m.Daemon = New(), New(), m.byDaemon()
	if err := m.System.Read(m.NixConf()); err != nil {
		return err
	}
	for _, file := range m.userFiles() {
		if err := m.Mine.Read(file); err != nil {
			return err
		}
	}
	return m.Mine.Parse(m.getenv("NIX_CONFIG"), "$NIX_CONFIG")
}

// NixConf is the file that counts for all users.
func (m *Machine) NixConf() string { return filepath.Join(m.Dir, "nix.conf") }

// userFiles are the user's, the one that counts most last.
func (m *Machine) userFiles() (files []string) {
	if list := m.getenv("NIX_USER_CONF_FILES"); list != "" {
		files = strings.Split(list, ":")
	} else {
		dirs := append([]string{m.configHome()}, strings.Split(cmp.Or(m.getenv("XDG_CONFIG_DIRS"), "/etc/xdg"), ":")...)
		for _, dir := range dirs {
			files = append(files, filepath.Join(dir, "nix", "nix.conf"))
		}
	}
	slices.Reverse(files)
	return files
}

func (m *Machine) configHome() string {
	return cmp.Or(m.getenv("XDG_CONFIG_HOME"), filepath.Join(m.home, ".config"))
}

// MyConf is the file that the user's own settings go to.
func (m *Machine) MyConf() string {
	files := m.userFiles()
	return files[len(files)-1]
}

// byDaemon tells whether Nix hands its work to nix-daemon: said by NIX_REMOTE, or because the user cannot
// write where Nix keeps its state and there is a socket (src/libstore/store-api.cc, "auto").
func (m *Machine) byDaemon() bool {
	switch remote := m.getenv("NIX_REMOTE"); {
	case remote == "daemon" || strings.HasPrefix(remote, "unix:"):
		return true
	case remote != "" && remote != "auto":
		return false
	}
	if m.UID == 0 {
		return false
	}
	_, err := os.Stat(m.DaemonSocket())
	return err == nil
}

// DaemonSocket is where nix-daemon listens.
func (m *Machine) DaemonSocket() string {
	return cmp.Or(m.getenv("NIX_DAEMON_SOCKET_PATH"), filepath.Join(cmp.Or(m.getenv("NIX_STATE_DIR"), "/nix/var/nix"), "daemon-socket", "socket"))
}

// Trusted tells whether the daemon takes every setting from the user.
func (m *Machine) Trusted() bool {
	if !m.Daemon {
		return true
	}
	return slices.ContainsFunc(m.System.List("trusted-users"), func(who string) bool {
		group, isGroup := strings.CutPrefix(who, "@")
		return who == "*" || who == m.User || isGroup && slices.Contains(m.Groups, group)
	})
}

// Effective is what counts for a substitution: system and user, of which a daemon takes all if it
// trusts the user, and of others the substituters alone that it knows itself.
func (m *Machine) Effective() *Conf {
	c := m.System.Clone()
	if m.Trusted() {
		for _, file := range m.userFiles() {
			_ = c.Read(file) // Load has read it
		}
		_ = c.Parse(m.getenv("NIX_CONFIG"), "$NIX_CONFIG")
		return c
	}
	known := append(m.System.List("trusted-substituters"), m.System.List("substituters")...)
	for _, url := range m.Mine.List("substituters") {
		if slices.ContainsFunc(known, func(k string) bool { return SameCache(k, url) }) && !Names(c.List("substituters"), url) {
			c.values["substituters"] = c.Value("substituters") + " " + url
		}
	}
	return c
}

// SameCache tells whether two store URLs name the same cache: what counts is all but a query and a slash at the end.
func SameCache(a, b string) bool { return Base(a) == Base(b) }

// Base is a store URL without its query and a slash at its end.
func Base(url string) string {
	url, _, _ = strings.Cut(url, "?")
	return strings.TrimRight(url, "/")
}

// LAN ends the URL of a Narwharf for those who are near: see cache/reply.LAN.
const LAN = "/lan"

// Names tells whether a list of store URLs has a cache.
func Names(list []string, url string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return SameCache(s, url) })
}

// Netrc is the file in which whoever downloads looks for passwords.
func (m *Machine) Netrc() string {
	return cmp.Or(m.Effective().Value("netrc-file"), filepath.Join(m.Dir, "netrc"))
}

// CacheDirs are where Nix may remember what caches have: the user's, and root's where the daemon works.
func (m *Machine) CacheDirs() []string {
	mine := filepath.Join(cmp.Or(m.getenv("XDG_CACHE_HOME"), filepath.Join(m.home, ".cache")), "nix")
	if m.Daemon {
		return []string{mine, "/root/.cache/nix"}
	}
	return []string{mine}
}

// IsNixOS tells whether this machine's nix.conf is made by its system.
func (m *Machine) IsNixOS() bool {
	if m.Dir != "/etc/nix" {
		return false
	}
	_, err := os.Stat("/etc/NIXOS")
	return err == nil
}

// SystemFile is where a change for all users goes, and why it cannot be made by us, if so.
func (m *Machine) SystemFile() (file string, refused error) {
	file = m.NixConf()
	if m.IsNixOS() {
		return file, fmt.Errorf("NixOS makes %s", file)
	}
	if st, err := os.Lstat(file); err == nil && st.Mode()&os.ModeSymlink != 0 {
		return file, fmt.Errorf("%s is a symbolic link: what manages it should have the lines", file)
	}
	// Determinate's Nix writes nix.conf itself at each start, and reads this one.
	if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), "include nix.custom.conf") {
		file = filepath.Join(m.Dir, "nix.custom.conf")
	}
	return file, nil
}
