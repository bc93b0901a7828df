package systemd

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"narwharf/nixos/effect"
	"narwharf/nixos/linux/sys"
)

// unitsPatience bounds each question about all units.
const unitsPatience = 30 * time.Second

// Units are those that have failed, or had a run that did, by name. changed tells whether
// a release changes a unit.
func Units(ctx context.Context, changed func(unit string) bool) ([]effect.Unit, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*unitsPatience)
	defer cancel()
	out, _, err := sys.Run(ctx, 4<<20, nil, "systemctl", "list-units", "--all", "--full", "--plain", "--no-legend", "--no-pager", "--state=failed,active,activating,reloading,deactivating")
	if err != nil {
		return nil, err
	}
	names := worthALook(out)
	if len(names) == 0 {
		return nil, nil
	}
	out, _, err = sys.Run(ctx, 16<<20, nil, "systemctl", append([]string{"show", "--no-pager", "--property=Id,LoadState,ActiveState,SubState,Type,Result,ExecMainStatus,Restart,RestartForceExitStatus,NRestarts,StateChangeTimestampMonotonic,TriggeredBy,Transient,LogLevelMax", "--"}, names...)...)
	if err != nil {
		return nil, err
	}
	return notWell(out, sys.Monotonic(), changed, func() map[string]time.Duration { return failures(ctx) }), nil
}

// worthALook reads systemctl list-units: what has failed, and every service, since one that
// runs may have crashed. Some versions put a dot before the name.
func worthALook(list string) []string {
	var names []string
	for line := range strings.Lines(list) {
		fields := strings.Fields(strings.TrimLeft(line, "●*× \t"))
		if len(fields) > 3 && fields[0] != switchUnit && (fields[2] == "failed" || strings.HasSuffix(fields[0], ".service")) {
			names = append(names, fields[0])
		}
	}
	return names
}

// crashAge is for how long a crash is one of a moment ago.
const crashAge = time.Minute

// notWell reads systemctl show. Transient units are of no system: a person's, or a session's. Nor are
// those without a file, or masked: a release took them out, and how they ended is no fault of it, such
// as the 143 of a Java that was asked to stop.
func notWell(show string, now time.Duration, changed func(string) bool, failures func() map[string]time.Duration) []effect.Unit {
	failures = sync.OnceValue(failures)
	var units []effect.Unit
	for block := range strings.SplitSeq(show, "\n\n") {
		p := properties(block)
		if p["Id"] == "" || p["Transient"] == "yes" || p["LoadState"] == "not-found" || p["LoadState"] == "masked" {
			continue
		}
		u := effect.Unit{Name: p["Id"], Failed: hasFailed(p), Crash: lastCrash(p, now, failures), Oneshot: isJob(p), Triggered: p["TriggeredBy"] != ""}
		if u.Failed || u.Crash != "" {
			u.Changed = changed(u.Name)
			units = append(units, u)
		}
	}
	slices.SortFunc(units, func(a, b effect.Unit) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(units, func(a, b effect.Unit) bool { return a.Name == b.Name })
}

// lastCrash names the last run of a unit that failed and had another after it, "" if there was
// none a moment ago.
func lastCrash(p map[string]string, now time.Duration, failures func() map[string]time.Duration) string {
	since, err := strconv.ParseInt(p["StateChangeTimestampMonotonic"], 10, 64)
	if err != nil || now-time.Duration(since)*time.Microsecond >= crashAge || p["NRestarts"] == "" || p["NRestarts"] == "0" {
		return ""
	}
	forced := p["RestartForceExitStatus"] != ""
	switch {
	case p["Restart"] == "on-success" && !forced:
		return ""
	case p["Restart"] != "always" && !forced, mute(p["LogLevelMax"]):
		return p["NRestarts"]
	}
	// That counts restarts after clean ends, too. Only the journal knows which those were.
	if at, ok := failures()[p["Id"]]; ok && now-at < crashAge {
		return at.String()
	}
	return ""
}

// mute tells whether systemd logs nothing of a unit's failed runs, which are warnings (4 in
// syslog(3)); no limit is -1.
func mute(logLevelMax string) bool {
	level, err := strconv.Atoi(logLevelMax)
	return err == nil && level >= 0 && level < 4
}

// isJob tells whether a unit does something and ends: a oneshot, what a timer or a path starts, and
// what a socket starts for each connection.
func isJob(p map[string]string) bool {
	by := p["TriggeredBy"]
	return p["Type"] == "oneshot" || strings.Contains(by, ".timer") || strings.Contains(by, ".path") || strings.Contains(by, ".socket") && strings.Contains(p["Id"], "@")
}

// hasFailed tells whether a unit is what systemd calls failed. Between two runs it is that
// only after one that ended badly: Result knows SuccessExitStatus, too.
func hasFailed(p map[string]string) bool {
	if !strings.HasPrefix(p["SubState"], "auto-restart") {
		return p["ActiveState"] == "failed"
	}
	if p["Result"] != "" {
		return p["Result"] != "success"
	}
	return p["ExecMainStatus"] != "0"
}

// unitFailed is systemd's message of a run that ended badly (SD_MESSAGE_UNIT_FAILURE_RESULT
// in sd-messages.h).
const unitFailed = "d9b373ed55a64feb8242e02dbe79a49c"

// failures are when units failed last, on this boot's clock without suspended time, as far
// as the journal knows.
func failures(ctx context.Context) map[string]time.Duration {
	last := make(map[string]time.Duration)
	out, _, err := sys.Run(ctx, 1<<20, nil, "journalctl", "--no-pager", "--quiet", "--boot", "--lines=500", "--output=json", "--output-fields=UNIT", "_PID=1", "MESSAGE_ID="+unitFailed)
	if err != nil {
		return last // there may be no journal
	}
	for line := range strings.Lines(out) {
		var e struct {
			Unit string `json:"UNIT"`
			At   int64  `json:"__MONOTONIC_TIMESTAMP,string"`
		}
		if json.Unmarshal([]byte(line), &e) == nil {
			last[e.Unit] = max(last[e.Unit], time.Duration(e.At)*time.Microsecond)
		}
	}
	return last
}
