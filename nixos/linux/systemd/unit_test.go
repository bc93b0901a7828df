package systemd

import (
	"errors"
	"maps"
	"testing"
)

// TestFingerprint: what a restart of the agent would change is another
// fingerprint, so also a password of its proxy that was exchanged in a file; what
// a restart would not survive is none.
func TestFingerprint(t *testing.T) {
	const show = "EnvironmentFiles=/run/secrets/proxy (ignore_errors=no)\nEnvironmentFiles=/etc/more.env (ignore_errors=yes)\n" +
		"FragmentPath=/etc/agent.service\nDropInPaths=/etc/a.conf /etc/b.conf\n"
	files := map[string]string{
		"/etc/agent.service": "unit", "/etc/agent.toml": "toml", "/etc/a.conf": "a", "/etc/b.conf": "b", "/run/secrets/proxy": "HTTPS_PROXY=http://u:old@proxy",
	}
	of := func(files map[string]string) string {
		return fingerprint(show, "/etc/agent.toml", func(name string) ([]byte, error) {
			if text, ok := files[name]; ok {
				return []byte(text), nil
			}
			return nil, errors.New("none")
		})
	}
	began := of(files)
	if began == "" || of(files) != began {
		t.Fatalf("%q, then %q", began, of(files))
	}
	with := func(name, text string) map[string]string {
		now := maps.Clone(files)
		now[name] = text
		return now
	}
	for _, name := range []string{"/etc/agent.service", "/etc/agent.toml", "/etc/a.conf", "/run/secrets/proxy", "/etc/more.env"} {
		if now := of(with(name, "HTTPS_PROXY=http://u:new@proxy")); now == "" || now == began {
			t.Errorf("%s is another, and the fingerprint is %q", name, now)
		}
	}
	for name := range files {
		now := maps.Clone(files)
		delete(now, name)
		if got := of(now); got != "" {
			t.Errorf("without %s the fingerprint is %q", name, got)
		}
	}
	if got := fingerprint("FragmentPath=\n", "/etc/agent.toml", nil); got != "" {
		t.Errorf("of no unit it is %q", got)
	}
}

func TestUnitOf(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/narwharf.service\n":                         "narwharf.service",
		"12:pids:/x\n1:name=systemd:/system.slice/narwharf.service\n": "narwharf.service",
		"0::/user.slice/user-0.slice/session-1.scope\n":               "",
		"": "",
	} {
		if got := unitOf(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestIsMain: what a service's own program, or its script, starts is the service; what others start within
// one is not.
func TestIsMain(t *testing.T) {
	for main, want := range map[string]bool{"": true, "7": true, "6": true, "5": false, "77": false} {
		if got := isMain(main, 7, 6); got != want {
			t.Errorf("%q: %t", main, got)
		}
	}
}
