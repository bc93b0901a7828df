package linux

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"narwharf/nixos/config"
	"narwharf/nixos/journal"
)

// Status is what the agent on this host is doing, for people: one line a fact, those that
// are not there left out.
func Status(cfg *config.Config, j *journal.Journal, now time.Time) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-10s %s\n", name, value)
		}
	}
	line("state", string(j.State))
	line("channel", fmt.Sprintf("%s (%s)", cfg.Channel, cfg.Origin))
	line("target", cfg.Target)
	line("seq", fmt.Sprint(j.Seq))
	line("error", j.Error)
	line("alarm", j.Alarm)
	line("server", j.Refusal)
	if j.WaitingFor != nil {
		line("waits for", fmt.Sprintf("%s: %s", j.WaitingFor.Kind, j.WaitingFor.Detail))
	}
	if p, err := ReadPause(cfg.StateDir, now); err == nil && p != nil {
		until := "until narwharf agent resume"
		if p.Until != nil {
			until = "until " + p.Until.Format(time.RFC3339)
		}
		line("paused", fmt.Sprintf("%s by %s: %s", until, p.By, p.Reason))
	}
	current := resolved(filepath.Join(cfg.RunDir, "current-system"))
	line("runs", current)
	if booted := resolved(filepath.Join(cfg.RunDir, "booted-system")); booted != current {
		line("booted", booted)
	}
	if profile := resolved(cfg.Profile); profile != current {
		line("will boot", profile)
	}
	line("confirmed", j.Confirmed)
	line("before it", j.ConfirmedBefore)
	if j.Attempt != nil {
		attemptStatus(j.Attempt, line)
	}
	for _, entry := range slices.Sorted(maps.Keys(j.Denied)) {
		d := j.Denied[entry]
		line("denied", fmt.Sprintf("%s (seq %d): %s", d.Path, d.Seq, d.Reason))
	}
	return b.String()
}

func attemptStatus(a *journal.Attempt, line func(name, value string)) {
	line("wanted", a.Path)
	line("action", string(a.Action))
	line("attempt", fmt.Sprintf("%s, in phase %s", a.ID, a.Phase))
	if a.Previous != a.Path {
		line("goes back", a.Previous)
	}
	if a.SwitchExit != nil {
		line("exit", fmt.Sprintf("%d of switch-to-configuration", *a.SwitchExit))
	}
	line("reboot for", strings.Join(a.RebootFor, ", "))
	line("new failed", strings.Join(a.NewFailed, " "))
	for _, k := range a.Checks {
		if !k.OK {
			line("check", fmt.Sprintf("%s (%s): %s", k.Name, k.Mode, k.Detail))
		}
	}
	if a.Unconfirmed {
		line("confirm", "none: committed without the server's word")
	} else {
		line("confirm", a.ConfirmedBy)
	}
	for _, path := range a.Differs {
		line("differs", path)
	}
	line("note", a.Note)
}

// resolved is where a link leads in the end, "" if it is none. What it names need
// not be there: a store may be mounted elsewhere.
func resolved(name string) (path string) {
	for range 8 {
		to, err := os.Readlink(name)
		if err != nil {
			return path
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(name), to)
		}
		name, path = to, to
	}
	return path
}
