package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// doctorServer looks at a server on its own machine; prefix is put before the command line.
func doctorServer(s *Server, prefix ...string) findings {
	s.T.Helper()
	argv := append(append([]string{}, prefix...), s.argv("doctor", "server", "--config", s.configFile(), "--json")...)
	return diagnose(s.T, run(s.T, program{argv: argv}))
}

// says holds a finding to its level and its words.
func (f findings) says(t testing.TB, check, level, words string) {
	t.Helper()
	if one := f[check]; one.Level != level || !strings.Contains(one.Text, words) {
		t.Errorf("%s: %q %q, want %q and %q", check, one.Level, one.Text, level, words)
	}
}

// A disk that is full is a fault, also while the server answers.
func TestDoctorFullDisk(t *testing.T) {
	t.Parallel()
	s, disk := newServerOn(t, 64<<20)
	free := disk.Fill(t)
	f := doctorServer(s, disk.Prefix...)
	free() // the server ends in order
	f.faults(t, "disk")
	f.says(t, "disk", "fault", "has 0.0 GiB left, and needs 0.5")
	f.says(t, "running", "ok", "answers") // what it has it serves
}

// A store that is served and that the server's user cannot read is a fault; what is to be typed says what to
// look at, and once it can be read there is none.
func TestDoctorUnreadableStore(t *testing.T) {
	t.Parallel()
	needTool(t, "setpriv", "util-linux")
	if os.Getuid() != 0 {
		t.Skip("another user is taken on by root alone")
	}
	suite := newest()
	m := aMachine(t, suite, NeedClosures(t, suite), "a")
	s := newServer(t, scratch(t), func(c *Config) { c.ServeStore, c.StoreRoot = true, m.Root })
	s.Start()
	as := []string{"setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups"}
	if err := os.Chmod(s.Dir, 0o755); err != nil { // the configuration and its key are his
		t.Fatal(err)
	}
	for _, name := range s.config.SecretKeyFiles {
		if !filepath.IsAbs(name) {
			name = filepath.Join(s.Dir, name)
		}
		if err := os.Chown(name, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	db := filepath.Join(m.Root, "nix/var/nix/db")
	for dir := db; dir != "/" && len(dir) > len("/tmp"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	doctorServer(s, as...).faults(t)
	if err := os.Chmod(db, 0o700); err != nil {
		t.Fatal(err)
	}
	f := doctorServer(s, as...)
	f.faults(t, "store")
	f.says(t, "store", "fault", "as user 65534")
	if err := os.Chmod(db, 0o755); err != nil {
		t.Fatal(err)
	}
	doctorServer(s, as...).faults(t)
}

// A certificate that has ended is a fault, one that nobody has renewed is a warning.
func TestDoctorCertificate(t *testing.T) {
	t.Parallel()
	ca := NewAuthority(t)
	s := newServer(t, scratch(t), func(c *Config) { c.TLS = ca })
	s.Start()
	f := doctorServer(s)
	f.faults(t)
	f.says(t, "tls", "warning", "does something renew it?")
	ca.IssueUntil(time.Now().Add(60*24*time.Hour), "server")
	doctorServer(s).says(t, "tls", "ok", "is good until")
	ca.IssueUntil(time.Now().Add(-time.Hour), "server")
	f = doctorServer(s)
	f.faults(t, "tls")
	f.says(t, "tls", "fault", "has ended")
	f.says(t, "running", "note", "it speaks TLS")
}
