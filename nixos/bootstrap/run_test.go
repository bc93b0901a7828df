package bootstrap

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A stage runs the script with programs that only note that they were called. It
// has folders of its own for what is /nix on a host.
type stage struct {
	t      *testing.T
	shell  []string
	dir    string
	state  string
	script string
}

// newStage makes one in which all goes well; no flock means that the script finds
// none.
func newStage(t *testing.T, shell []string, flock bool, change func(*Script)) *stage {
	t.Helper()
	s := &stage{t: t, shell: shell, dir: t.TempDir()}
	s.state = filepath.Join(s.dir, "state")
	agent := filepath.Join(s.dir, "agent")
	s.put("bin/nix-store", `case $1 in --check-validity) exit 1 ;; esac
for key; do case $key in netrc-file) found=1 ;; *) [ -z "${found-}" ] || { cp "$key" "$STAGE/netrc"; found=; } ;; esac; done`)
	s.put("bin/curl", ":")
	s.put("bin/systemctl", `[ "$1" != is-active ] || exit 3`)
	s.put("bin/id", "echo 0")
	s.put("bin/uname", `[ "$1" != -n ] || { echo web-1; exit; }
echo x86_64`)
	s.put("bin/sleep", "exec /bin/sleep 0.0$1")
	s.put("agent/bin/narwharf", `cp "$4" "$STAGE/agent.toml"
[ -s "$STATE/token" ] || { cp "$STATE/bootstrap/join-token" "$STATE/token"; rm -f "$STATE/bootstrap/join-token"; }
echo ok`)
	b := sampleScript(t)
	b.Patience = 20 * time.Second
	if change != nil {
		change(b)
	}
	script := b.mustScript(t)
	replace := func(old, by string) {
		if !strings.Contains(script, old) {
			t.Fatalf("the script has no %s", old)
		}
		script = strings.ReplaceAll(script, old, by)
	}
	replace("state='"+stateDir+"'", "state="+shQuote(s.state))
	replace("echo '"+someAgent+"'", "echo "+shQuote(agent))
	replace("\nPATH=", "\nPATH="+filepath.Join(s.dir, "bin")+":")
	if !flock {
		replace("command -v flock > /dev/null", "false")
	}
	s.script = filepath.Join(s.dir, "script")
	if err := os.WriteFile(s.script, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// put makes a program, which notes its name and first words in the file called.
func (s *stage) put(name, body string) {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		s.t.Fatal(err)
	}
	text := "#!/bin/sh\nSTAGE=" + shQuote(s.dir) + " STATE=" + shQuote(s.state) + "\necho \"${0##*/} $1 ${2-}\" >> \"$STAGE/called\"\n" + body + "\n"
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) command() (*exec.Cmd, *strings.Builder) {
	c := exec.Command(s.shell[0], append(s.shell[1:], s.script)...)
	said := new(strings.Builder)
	c.Stdout, c.Stderr = said, said
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c, said
}

func exitOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// run runs the script and wants an exit status and words.
func (s *stage) run(status int, words ...string) {
	s.t.Helper()
	c, said := s.command()
	if got := exitOf(c.Run()); got != status {
		s.t.Errorf("%s ends with %d, want %d:\n%s", s.shell[0], got, status, said)
	}
	for _, w := range words {
		if !strings.Contains(said.String(), w) {
			s.t.Errorf("%s does not say %q:\n%s", s.shell[0], w, said)
		}
	}
	s.clean()
}

// clean checks that a run has left no lock and no half file.
func (s *stage) clean() {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.state, "bootstrap"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "lock.") || strings.Count(e.Name(), ".") > 1 || filepath.Ext(e.Name()) != "" && e.Name() != "agent.toml" && e.Name() != "ca.pem" {
			s.t.Errorf("%s is left", e.Name())
		}
		if info, err := e.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			s.t.Errorf("%s is for others, too: %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

// calls counts what was called.
func (s *stage) calls(what string) int {
	text, err := os.ReadFile(filepath.Join(s.dir, "called"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return strings.Count("\n"+string(text), "\n"+what)
}

// eachStage runs a test with every shell, with flock and without.
func eachStage(t *testing.T, test func(t *testing.T, shell []string, flock bool)) {
	for _, shell := range shells() {
		for _, flock := range []bool{true, false} {
			t.Run(shell[0]+map[bool]string{true: " flock"}[flock], func(t *testing.T) {
				t.Parallel()
				test(t, shell, flock)
			})
		}
	}
}

func TestBootstrapRuns(t *testing.T) {
	eachStage(t, func(t *testing.T, shell []string, flock bool) {
		s := newStage(t, shell, flock, nil)
		s.run(0, "making web-1 a host of web at https://cache.example.org", "fetching the agent", "done: ok")
		if s.calls("narwharf agent once") != 1 || s.calls("systemctl reboot") != 0 {
			t.Error("the agent did not run once, or it rebooted")
		}
		netrc, err := os.ReadFile(filepath.Join(s.dir, "netrc"))
		if err != nil || !strings.HasPrefix(string(netrc), "machine cache.example.org\nlogin narwharf\npassword nwt_") {
			t.Errorf("netrc %q, %v", netrc, err)
		}
		s.run(0, "done: ok") // again
		// What fails says what, each with its status.
		s.put("bin/curl", "exit 6")
		s.run(4, "https://cache.example.org does not answer: try 1 of", "was not reached")
		s.put("bin/curl", ":")
		s.put("bin/nix-store", "exit 1")
		s.run(5, "the agent could not be fetched")
		s.put("bin/nix-store", ":")
		for code, want := range map[int]int{1: 3, 2: 3, 3: 3, 4: 0, 5: 6} {
			s.put("agent/bin/narwharf", "echo reverted; exit "+strconv.Itoa(code))
			s.run(want)
		}
		s.put("bin/systemctl", "exit 0")
		before := s.calls("narwharf")
		if s.run(0, "there is nothing to do"); s.calls("narwharf") != before {
			t.Error("it ran an agent beside the system's")
		}
	})
}

func TestBootstrapLacks(t *testing.T) {
	for _, shell := range shells() {
		s := newStage(t, shell, true, func(b *Script) { b.Agents = map[string]string{"aarch64-linux": someAgent} })
		s.run(1, "there is no agent for x86_64 in this script")
		s = newStage(t, shell, true, nil)
		s.put("bin/uname", "echo nixos")
		s.run(1, "this machine is called nixos")
		s.put("bin/id", "echo 1000")
		s.run(1, "as root")
		s = newStage(t, shell, true, func(b *Script) { b.Host = "localhost" }) // somebody wants it so
		s.put("bin/uname", `[ "$1" != -n ] || { echo localhost; exit; }
echo x86_64`)
		s.run(0)
	}
}

// It reboots into a system that needs it, and not in circles.
// A machine that was removed, or whose token was revoked, joins anew; one whose
// server only has trouble does not.
func TestBootstrapVoidToken(t *testing.T) {
	eachStage(t, func(t *testing.T, shell []string, flock bool) {
		for answer, joins := range map[string]bool{"401": true, "200": false, "503": false, "none": false} {
			s := newStage(t, shell, flock, nil)
			s.put("bin/curl", `case "$*" in */desired*)
	grep -q "^password nwt_own$" "$STATE/bootstrap/netrc" || exit 9
	[ `+answer+` != none ] || exit 7
	printf %s `+answer+` ;;
esac`)
			if err := os.MkdirAll(s.state, 0o700); err != nil {
				t.Fatal(err)
			}
			own := filepath.Join(s.state, "token")
			if err := os.WriteFile(own, []byte("nwt_own\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.run(0)
			token, err := os.ReadFile(own)
			if err != nil {
				t.Fatal(err)
			}
			if (string(token) != "nwt_own\n") != joins {
				t.Errorf("%s: the token is now %q", answer, token)
			}
			if _, err := os.Stat(own + ".void"); (err == nil) != joins {
				t.Errorf("%s: the old token: %v", answer, err)
			}
		}
	})
}

func TestBootstrapReboots(t *testing.T) {
	for _, shell := range shells() {
		s := newStage(t, shell, true, nil)
		s.put("agent/bin/narwharf", "echo armed")
		if s.run(0, "done: armed", "rebooting into"); s.calls("systemctl reboot") != 1 {
			t.Error("it did not reboot")
		}
		if s.run(3, "it was rebooted into the new system before"); s.calls("systemctl reboot") != 1 {
			t.Error("it rebooted again")
		}
		s.put("agent/bin/narwharf", "echo ok")
		s.run(0)
		s.put("agent/bin/narwharf", "echo armed") // another time, another system
		if s.run(0); s.calls("systemctl reboot") != 2 {
			t.Error("it did not reboot for another system")
		}
		s = newStage(t, shell, true, func(b *Script) { b.Reboot = false })
		s.put("agent/bin/narwharf", "echo armed")
		if s.run(0); s.calls("systemctl reboot") != 0 {
			t.Error("it rebooted, and was made not to")
		}
	}
}

// Many at once: one works at a time, and all are content.
func TestBootstrapAtOnce(t *testing.T) {
	eachStage(t, func(t *testing.T, shell []string, flock bool) {
		s := newStage(t, shell, flock, func(b *Script) { b.Patience = time.Hour }) // of seconds that are short here
		s.put("agent/bin/narwharf", `mkdir "$STAGE/alone" || { echo "two at once" >&2; exit 1; }
/bin/sleep 0.2; rmdir "$STAGE/alone"; echo ok`)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				c, said := s.command()
				if got := exitOf(c.Run()); got != 0 {
					t.Errorf("it ends with %d:\n%s", got, said)
				}
			})
		}
		all.Wait()
		s.clean()
	})
}

// A lock of a run that was ended is nobody's: of this boot, by its process, or of
// another boot.
func TestBootstrapStaleLock(t *testing.T) {
	for _, shell := range shells() {
		for name, owner := range map[string]string{"dead": "999999999 BOOT", "another boot": strconv.Itoa(os.Getpid()) + " other"} {
			boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
			if err != nil {
				t.Fatal(err)
			}
			s := newStage(t, shell, false, nil)
			if err := os.MkdirAll(filepath.Join(s.state, "bootstrap"), 0o700); err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(owner, "BOOT", strings.TrimSpace(string(boot)))
			if err := os.Symlink(text, filepath.Join(s.state, "bootstrap/lock.by")); err != nil {
				t.Fatal(err)
			}
			t.Log(name)
			s.run(0, "left its lock: taking it")
		}
	}
}

// A run that is told to stop leaves no lock; one that is killed leaves one that
// the next takes.
func TestBootstrapEnded(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		eachStage(t, func(t *testing.T, shell []string, flock bool) {
			s := newStage(t, shell, flock, nil)
			s.put("agent/bin/narwharf", "echo $$ > \"$STAGE/running\"; exec /bin/sleep 600")
			c, said := s.command()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			for range 3000 {
				if text, err := os.ReadFile(filepath.Join(s.dir, "running")); err == nil && len(text) > 0 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err := syscall.Kill(-c.Process.Pid, signal); err != nil { // its own group
				t.Fatal(err)
			}
			if got := exitOf(c.Wait()); got == 0 {
				t.Errorf("it ends with 0:\n%s", said)
			}
			s.put("agent/bin/narwharf", "echo ok")
			s.run(0, "done: ok")
		})
	}
}
