package summary

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/plan"
	"narwharf/hooks/rollout"
)

func aPlan() *plan.Plan {
	return &plan.Plan{
		Channel: "web", From: 41, Seq: 42, Waved: true, Hosts: 14, Changing: 12, Unchanged: 1, Silent: 1, Reboots: 12, ByHand: true, Offline: 2, Held: 1, Fetch: 12 << 20,
		Refused: &plan.Refusal{Kind: "not_proven", Message: "web takes what was proven on staging"},
		Waves:   []plan.Wave{{Name: "canary", Select: "canary=true", Hosts: 1, Bake: "10m", Checks: []string{"errors"}}, {Name: "wave 2", Hosts: 11, Offline: 2, Approve: true}},
		Steps: []plan.Step{{
			From: "/nix/store/a-nixos-1", To: "/nix/store/b-nixos-2", Action: "auto", Hosts: 12, Targets: []string{"web-1", "web-2", "web-3"}, FetchPaths: 31, Fetch: 1 << 20, Reboot: true, For: []string{"kernel", "initrd"},
			Packages: []plan.Package{
				{Name: "firefox", Before: []string{"78.0"}, After: []string{"79.0"}, Bytes: 3 << 20}, {Name: "new", After: []string{""}, Bytes: 5000},
				{Name: "gone", Before: []string{"1"}, Bytes: -700}, {Name: "odd", Before: []string{"2"}, After: []string{"1"}, Older: true}, {Name: "rebuilt", Before: []string{"1"}, After: []string{"1"}, Bytes: 9000},
			}, More: 3,
		}},
		MoreSteps: 2,
	}
}

func TestPlan(t *testing.T) {
	var out strings.Builder
	if err := Plan(&out, aPlan(), 4); err != nil {
		t.Fatal(err)
	}
	want := `release 42 of web (now 41)
refused now  not_proven: web takes what was proven on staging
hosts        12 of 14 change, 1 run it, 1 never reported
to fetch     12 MiB unpacked, by all together
reboots      12 need one, and with auto wait for a person: the policy has no reboot_slots
offline      2
held         1
waves        canary: 1 hosts; of canary=true; bakes 10m; checks errors
             wave 2: 11 hosts, 2 of them offline; then somebody says advance

12 hosts (web-1, web-2, web-3, …): 31 paths, 1024 KiB; by a reboot (kernel, initrd)
  from /nix/store/a-nixos-1
  to   /nix/store/b-nixos-2
  PACKAGE  VERSION        SIZE
  firefox  78.0 → 79.0    +3072 KiB
  new      added ε        +5000 bytes
  gone     removed 1      -700 bytes
  odd      2 → 1 (older)  +0 bytes
  … 4 more packages

… 2 more steps from one system to another, whose bytes are not counted
`
	if out.String() != want {
		t.Errorf("it says\n%s\nwant\n%s", out.String(), want)
	}
}

// What hosts and releases are called is text, and no Markdown.
func TestMarkdown(t *testing.T) {
	p := aPlan()
	p.Steps[0].Packages[0].Name = "<b>|x|`"
	var out strings.Builder
	PlanMarkdown(&out, p)
	OutcomeMarkdown(&out, &Outcome{Channel: "web", Seq: 42, Words: "halted", Seconds: 31.6, Line: "1 of 12 hosts run it", Hosts: []string{"web-3: [reverted](http://x)", "# web-4\\| ok | @all www.x $a$"}, Bad: true})
	for _, words := range []string{
		"## Plan: release 42 of web (now 41)\n", "| hosts | 12 of 14 change, 1 run it, 1 never reported |\n", `| &lt;b&gt;\|x\|' | 78.0 → 79.0 | +3072 KiB |`,
		"`/nix/store/a-nixos-1` → `/nix/store/b-nixos-2`\n", "<details><summary>8 packages</summary>\n", "… 2 more steps",
		"## ❌ halted: release 42 of web after 32 s\n\n1 of 12 hosts run it\n", `- web-3: \[reverted](http:&#47;&#47;x)`, `- \# web-4\\\| ok \| @<!-- -->all www&#46;x \$a\$` + "\n",
	} {
		if !strings.Contains(out.String(), words) {
			t.Errorf("it does not say %q:\n%s", words, out.String())
		}
	}
}

func TestTree(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &rollout.Summary{
		Channel: "web", Seq: 42, State: rollout.Halted, Why: "2 hosts ended badly, and max_errors is 1", Created: now.Add(-90 * time.Second), Present: true, Now: true, Total: 12, Well: 1, InFlight: 1, Bad: 2, Offline: 2, Queued: 43,
		Waves: []rollout.WaveSummary{
			{Name: "canary", State: rollout.WavePassed, Size: 1, Well: 1},
			{Name: "wave 2", State: rollout.WaveOpen, Size: 3, Bad: 2, Open: 1, Checks: map[string]rollout.Check{"errors": {OK: true, Detail: "0.1"}}},
			{Name: "wave 3", State: rollout.WaveAhead},
		},
		Flight: []rollout.HostLine{{Host: "web-4", Phase: "begun"}},
		Faults: []rollout.HostLine{{Host: "web-2", Phase: "bad", Fault: rollout.Reverted}, {Host: "web-3", Phase: "left", Fault: rollout.Failed}},
		Waits:  map[api.WaitKind]int{api.WaitWave: 8}, More: true,
	}
	want := `web  release 42  HALTED  1m30s  --now
  2 hosts ended badly, and max_errors is 1
├ canary       passed, 1 of 1 well
├ wave 2       open, 0 of 3 well, 1 to go, 2 bad
│   check errors: yes 0.1
└ wave 3       ahead
  hosts        1 of 12 hosts run it; 1 on their way; 2 ended badly; waiting: 8 wave; 2 offline
  on their way web-4: begun
  ended badly  web-2: reverted
               web-3: failed, left
  … and more hosts: narwharf hosts web
  then         release 43
  next         narwharf rollout retry|resume|abort web, or promote a fix`
	if got := strings.Join(Tree(s, now), "\n"); got != want {
		t.Errorf("it says\n%s\nwant\n%s", got, want)
	}
	s.State, s.Waves[1].State = rollout.Running, rollout.WaveApproval
	if got := Next(s); got != "narwharf rollout advance web --reason …" {
		t.Error(got)
	}
}
