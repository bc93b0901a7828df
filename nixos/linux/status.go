package linux

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/config"
	"narwharf/nixos/journal"
)

// Status is what the agent on this host is doing, for people: one line a fact, those that
// are not there left out.
func Status(cfg *config.Config, j *journal.Journal, now time.Time) string {
	var b strings.Builder
	line := func(name, value string) {
		if value = clip.Line(value, 4<<10); value != "" { // the server's words, and a release's
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
	s := systems{storeDir: cfg.StoreDir, runDir: cfg.RunDir}
	current, _ := s.current() // what cannot be read is left out
	line("runs", current)
	if booted, _ := s.booted(); booted != current {
		line("booted", booted)
	}
	if profile, _ := s.link(cfg.Profile); profile != current {
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

// A textfile writes metrics for node_exporter's textfile collector, whose names
// end in .prom.
type textfile struct {
	name string
	log  *slog.Logger
}

// observe is for nixos.Agent.Observe.
func (t *textfile) observe(s *api.Status, j *journal.Journal) {
	// Whatever the umask of the agent's unit: node_exporter is another user.
	if err := durable.Write(t.name, []byte(metricsText(s, j)), durable.Options{Mode: 0o644, Exact: true}); err != nil {
		t.log.Warn("the metrics cannot be written", "error", err)
	}
}

func metricsText(s *api.Status, j *journal.Journal) string {
	var b strings.Builder
	gauge := func(name, help string, value int64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", name, help, name, name, value)
	}
	flag := func(v bool) int64 {
		if v {
			return 1
		}
		return 0
	}
	gauge("nixos_current_generation", "Generation of the system profile that runs, 0 if none does.", s.CurrentGeneration)
	gauge("nixos_boot_generation", "Generation of the system profile that boots.", s.BootGeneration)
	gauge("nixos_config_age_seconds", "Seconds since the running system was activated.", s.ConfigAge)
	gauge("narwharf_agent_seq", "Release that the state is about.", s.Seq)
	gauge("narwharf_agent_highest_seq", "Highest release that was ever accepted.", s.HighestSeq)
	gauge("narwharf_agent_need_reboot", "Whether only a reboot makes the host what it should be.", flag(s.NeedReboot))
	gauge("narwharf_agent_paused", "Whether a person on the host paused it.", flag(s.Pause != nil))
	gauge("narwharf_agent_alarm", "Whether the server showed what looks like an attack.", flag(j.Alarm != ""))
	gauge("narwharf_agent_unconfirmed", "Whether the system was committed without the server's word.", flag(s.Unconfirmed))
	gauge("narwharf_agent_denied_entries", "Entries that failed here and are not tried again.", int64(len(j.Denied)))
	vector := func(name, help, label string, values map[string]float64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
		for _, v := range slices.Sorted(maps.Keys(values)) {
			fmt.Fprintf(&b, "%s{%s=%q} %g\n", name, label, v, values[v])
		}
	}
	states := make(map[string]float64)
	for _, st := range api.States {
		states[string(st)] = float64(flag(st == s.State))
	}
	vector("narwharf_agent_state", "1 for the state that the agent is in.", "state", states)
	if len(s.Durations) > 0 {
		parts := make(map[string]float64)
		for p, ms := range s.Durations {
			parts[p] = float64(ms) / 1000
		}
		vector("narwharf_agent_duration_seconds", "How long parts of the last attempt took.", "part", parts)
	}
	return b.String()
}
