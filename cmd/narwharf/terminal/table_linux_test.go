package terminal

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"narwharf/hooks/api"
)

// terminal is a pseudo terminal of so many columns, and what is printed to it.
func newTerminal(t *testing.T, columns uint16) (tty *os.File, printed func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 1<<16)
	return tty, func() string {
		t.Helper()
		all, wait := "", 2000
		for {
			ready := []unix.PollFd{{Fd: int32(master.Fd()), Events: unix.POLLIN}}
			if n, err := unix.Poll(ready, wait); err != nil || n == 0 {
				return strings.ReplaceAll(all, "\r\n", "\n")
			}
			n, err := master.Read(text)
			if err != nil {
				t.Fatal(err)
			}
			all, wait = all+string(text[:n]), 50 // it comes in pieces
		}
	}
}

func hosts() []api.Host {
	system := "/nix/store/0c0vbw3cxnvd6dpyvnp8y4s5j9zcwg0m-nixos-system-web-1-26.05pre1234.abcdef"
	status := func(state api.State, more func(*api.Status)) *api.Status {
		st := &api.Status{State: state, Seq: 7, Channel: "web", Current: system}
		if more != nil {
			more(st)
		}
		return st
	}
	until := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	seen := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
	return []api.Host{
		{Host: "ok", Online: true, WantedSeq: 7, Status: status(api.OK, nil)},
		{Host: "off", LastSeen: seen, WantedSeq: 7, Status: status(api.OK, nil)},
		{Host: "held", Online: true, WantedSeq: 7, Hold: &api.Hold{Reason: "disk", By: "op", Until: &until}, Status: status(api.WaitingState, nil)},
		{Host: "paused", Online: true, WantedSeq: 7, Status: status(api.OK, func(st *api.Status) { st.Pause = &api.Hold{Reason: "fan", By: "root"} })},
		{Host: "offheld", LastSeen: seen, Hold: &api.Hold{Reason: "x", By: "op"}, Status: status(api.Reverted, func(st *api.Status) { st.Error = "unit \x1b[2Jnginx.service: failed\nforged row  now  ok" })},
		{Host: "new", Online: true},
		{Host: "日本", Online: true, Status: status(api.Staging, nil)},
	}
}

// One host is one line, and it fits: at every width, with nasty words too.
func TestHostsFit(t *testing.T) {
	t.Setenv("TZ", "UTC")
	time.Local = time.UTC
	t.Setenv("NO_COLOR", "1")
	for width := uint16(60); width < 240; width += 7 {
		tty, printed := newTerminal(t, width)
		if err := Hosts(tty, hosts()); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(printed(), "\n"), "\n")
		if len(lines) != 1+len(hosts()) {
			t.Errorf("%d columns: %d lines\n%s", width, len(lines), strings.Join(lines, "\n"))
		}
		for _, l := range lines {
			if n := columns(l); n > int(width) || strings.Contains(l, "\x1b") {
				t.Errorf("%d columns: a line of %d: %q", width, n, l)
			}
		}
	}
}

// Into a pipe everything is printed, and states in words.
func TestHostsInAPipe(t *testing.T) {
	time.Local = time.UTC
	var out strings.Builder
	if err := Hosts(&out, hosts()); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{
		"ok       now                      ok ", "off      2026-02-01 12:00:00 UTC  offline (ok) ", "held (waiting)", "paused (ok)", "offline, held (reverted)", "never reported",
		"held: disk, by op, until 2026-03-01 12:00:00 UTC", "paused: fan, by root", "/nix/store/0c0vbw3cxnvd6dpyvnp8y4s5j9zcwg0m-nixos-system-web-1-26.05pre1234.abcdef",
		"unit \uFFFD[2Jnginx.service: failed\uFFFDforged row",
	} {
		if !strings.Contains(out.String(), words) {
			t.Errorf("no %q in\n%s", words, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), "\n") != 1+len(hosts()) {
		t.Errorf("%q", out.String())
	}
}

// Colours are for terminals, and NO_COLOR takes them away.
func TestColours(t *testing.T) {
	for _, c := range []struct{ noColour, term, want string }{
		{"", "xterm", "\x1b[32mok\x1b[0m"}, {"1", "xterm", "ok"}, {"", "dumb", "ok"},
	} {
		t.Setenv("NO_COLOR", c.noColour)
		t.Setenv("TERM", c.term)
		tty, printed := newTerminal(t, 80)
		err := Table(tty, "STATE", func(row func(...any)) { row(Cell{"ok", Good}) })
		if got := printed(); err != nil || got != "STATE\n"+c.want+"\n" {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

// A bar on a terminal gives way to lines; elsewhere there are lines, now and then.
func TestProgress(t *testing.T) {
	tty, printed := newTerminal(t, 80)
	p := NewProgress(tty)
	p.shown = time.Time{}
	p.Report("files", 5, 10)
	if got := printed(); !strings.Contains(got, "[============            ] files: 5 of 10 (50 %)") || strings.Contains(got, "\n") {
		t.Errorf("%q", got)
	}
	fmt.Fprintln(p.Writer(tty), "damaged: x")
	if got := printed(); got != "\r\x1b[Kdamaged: x\n" {
		t.Errorf("%q", got)
	}
	var out strings.Builder
	p = NewProgress(&out)
	p.Report("files", 1, 10)
	if out.Len() > 0 {
		t.Errorf("at once: %q", out.String())
	}
	p.shown, p.begun = time.Now().Add(-patience), time.Now().Add(-20*time.Second)
	p.Report("files", 5, 10)
	p.Report("files", 6, 10)
	p.End()
	if out.String() != "files: 5 of 10 (50 %), 20s left\n" {
		t.Errorf("%q", out.String())
	}
}
