package engine_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// faults are mistakes that somebody could make in the engine, each of which some test
// here has to catch.
var faults = []struct{ what, file, is, becomes string }{
	{"a withdrawn grant holds no place", "rollout.go", "p == Granted || p == Withdrawn || p == Begun", "p == Granted || p == Begun"},
	{"one more than max_concurrency", "engine/grant.go", "c.Flight < run.Row.Policy.Concurrency", "c.Flight <= run.Row.Policy.Concurrency"},
	{"late hosts all at once", "engine/grant.go", "return c.Flight == 0", "return true"},
	{"one more than a budget", "roster/roster.go", "b.taken >= b.MaxUnavailable", "b.taken > b.MaxUnavailable"},
	{"a freeze does not stop grants", "roster/roster.go", "return !c.Closed && !e.Frozen()", "return !c.Closed"},
	{"windows do not stop grants", "roster/roster.go", "return !c.Closed && !e.Frozen()", "return !e.Frozen()"},
	{"no bake", "engine/wave.go", "if e.Now.Before(over) {", "if false {"},
	{"a check's answer of before the bake counts", "engine/fail.go", "ev.Asked.Before(w.Met) || ", ""},
	{"a wave passes without its check", "engine/wave.go", `w.Unanswered(spec.Checks, over); name != "" {`, "w.Unanswered(nil, over); name != \"\" {"},
	{"a check's answer stands for ever", "rollout.go", "c.Stands == 0 || ", "true || "},
	{"a wave passes without a yes", "engine/wave.go", `if spec.Approve && w.Approved == "" {`, "if false {"},
	{"a wave passes with hosts on their way", "engine/wave.go", "case n[roster.Well] >= need:", "case n[roster.Well]+n[roster.Open] >= need:"},
	{"the word of an old attempt counts", "word.go", `if over != "" && l.Attempt == over {`, "if false {"},
	{"ok counts, whatever runs", "word.go", "|| l.Current == e.Path {", "|| true {"},
	{"a host is shown less than it has accepted", "roster/answer.go", "return max(newest, l.HighestSeq)", "return newest"},
	{"a grant stands in a roll-out that is over", "attempt/grant.go", "(!open || c.Run == nil", "(c.Run == nil"},
	{"clocks start at notice", "engine/wave.go", "w.Met = e.fact", "w.Met = e.Now"},
	{"after lets one go too early", "roster/class.go", "if n > 0 {\n				return \"after\"", "if n > 1 {\n				return \"after\""},
	{"a lease ends too early", "attempt/grant.go", "at = r.Until.Add(rollout.Grace)", "at = r.Until"},
	{"a host is not woken", "roster/host.go", "e.Out.Wake = append(e.Out.Wake, h.Row.Name)", "_ = key"},
	{"what was quarantined is promoted", "engine/promote.go", "if !ev.Force {", "if false {"},
	{"a row is not stored", "roster/roster.go", "if e.Hosts[h.Row.Name] == h {", "if e.Hosts[h.Row.Name] == h && h.Row.Phase != rollout.Begun {"},
	{"a time-out frees the place", "attempt/grant.go", `	case rollout.Begun, rollout.Reverting:
		c.timedOut()`, `	case rollout.Begun, rollout.Reverting:
		c.end(rollout.Bad, rollout.TimedOut)`},
	{"hosts are late that could tell nobody", "attempt/grant.go", "if at.Before(c.Heard) {", "if false {"},
	{"an attempt is over that may go on", "attempt/attempt.go", "r.Over = c.over()", "r.Over = c.Level.Attempt"},
	{"a retry takes an attempt for over", "attempt/grant.go", "rollout.Untouched, true, c.over()", "rollout.Untouched, true, c.Level.Attempt"},
	{"who stays is asked for ever", "attempt/attempt.go", "r.Fault == rollout.TimedOut && (c.Run == nil || c.Run.Seq != r.Seq):", "false:"},
	{"who lost its state is armed for ever", "attempt/attempt.go", "case rollout.Elsewhere, rollout.Ready, rollout.HoldsBack:", "case rollout.Elsewhere:"},
	{"a lease that ended before holds the clock", "engine/engine.go", "e.Expire() // what was decided", "// what was decided"},
	{"quarantine is one channel's", "engine/fail.go", "if other != c && other.Run != nil {", "if false {"},
	{"nobody tells of hosts behind bad ones", "engine/wave.go", "e.Barred(c) == open", "false"},
	{"who is armed is held back", "roster/facet.go", " && !(about && r.Phase == rollout.Armed)", ""},
	{"a revert begins with the first", "roster/class.go", "x.a = -h.Row.At.UnixNano()", "x.a = h.Row.At.UnixNano()"},
	{"a queued release comes at once", "engine/promote.go", "case e.onTheWay(c) && supersedes(c, ev) == policy.Queue:", "case false:"},
	{"requires asks for no bake", "engine/promote.go", "if since >= time.Duration(req.Baked) {", "if true {"},
	{"a halted release is rebooted into", "roster/reboot.go", "	switch row.State {", "	switch row.State {\n	case rollout.Halted:\n		return \"\", \"\"\n	}\n	switch row.State {"},
	{"a reboot needs no budget", "roster/reboot.go", "!h.Counted.Taken && h.Class.full()", "false"},
	{"the host's channel is not looked at again", "roster/class.go", "	e.freed = false\n", "	e.freed = true\n	return\n"},
	{"who was asked to go back is an error", "attempt/attempt.go", "word == rollout.IsReverted && c.Level.Asked && entry", "entry == nil && entry"},
	{"what was asked for bans the bytes", "attempt/attempt.go", "c.deny(entry)\n\t\tc.end(rollout.Back, c.Row.Fault)\n\t\treturn", "c.end(rollout.Back, c.Row.Fault)\n\t\treturn"},
	{"a wave's time runs while the server is off", "engine/wave.go", "w.Since.Before(e.Began)", "w.Since.Before(time.Time{})"},
	{"who went off is picked for a wave", "roster/line.go", "case !h.Away.IsZero():\n\t\treturn 1", "case !h.Away.IsZero():\n\t\treturn 0"},
	{"who went off gets a place first", "roster/class.go", "x.a |= 1 << 31", "x.a |= 0"},
	{"who let go holds its place for the lease", "attempt/grant.go", "r.Until, c.Changed = c.Now, true", "c.Changed = false"},
	{"any grant was let go", "attempt/grant.go", "c.Level.LetGo == c.Row.GrantID()", "true"},
	{"a host is woken because it is well", "roster/answer.go", " || e.rests(h)) &&", ") &&"},
	{"who is well has its grant in a freeze", "roster/answer.go", "!entry.Changes(&h.Level) && e.grantStands(h)", "!entry.Changes(&h.Level)"},
	{"a wave's time is not stored", "engine/wave.go", "e.Now.Sub(w.Since) >= alive", "false"},
}

// part are the faults of a part of all, "2/4" for the second of four; "1" is all.
func part(t *testing.T, word string) (first, step int) {
	t.Helper()
	if _, err := fmt.Sscanf(word, "%d/%d", &first, &step); err != nil || first < 1 || first > step {
		return 0, 1
	}
	return first - 1, step
}

// TestMutations puts each fault into the engine, and wants a test to fail.
func TestMutations(t *testing.T) {
	if os.Getenv("NARWHARF_MUTATIONS") == "" {
		t.Skip("NARWHARF_MUTATIONS=1 (make rollout-model), or =2/4 for the second of four parts, puts faults into the engine, which tests have to catch")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	caught, tried := 0, 0
	first, step := part(t, os.Getenv("NARWHARF_MUTATIONS"))
	for i := first; i < len(faults); i += step {
		f := faults[i]
		tried++
		t.Run(strings.ReplaceAll(f.what, " ", "_"), func(t *testing.T) {
			name := filepath.Join(root, f.file)
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), f.is) {
				t.Fatalf("%s has no %q any more: write the fault anew", f.file, f.is)
			}
			dir := t.TempDir()
			bad, overlay := filepath.Join(dir, "bad.go"), filepath.Join(dir, "overlay.json")
			rule, err := json.Marshal(map[string]map[string]string{"Replace": {name: bad}})
			if err != nil {
				t.Fatal(err)
			}
			for file, content := range map[string]string{bad: strings.Replace(string(text), f.is, f.becomes, 1), overlay: string(rule)} {
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.Command("go", "test", "-vet=off", "-count=1", "-timeout=60s", "-overlay", overlay, "-short", "-failfast", "-skip", "TestMutations", ".", "-rapid.shrinktime=1ms", "-rapid.nofailfile").CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("no test has noticed: %s", f.what)
			case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "test timed out"):
				t.Errorf("it does not run: %s", out)
			default:
				_, by, _ := strings.Cut(string(out), "--- FAIL: ")
				by, _, _ = strings.Cut(by, " ")
				t.Logf("caught by %s", cmp.Or(by, "its time"))
				caught++
			}
		})
	}
	t.Logf("%d of %d faults caught", caught, tried)
}
