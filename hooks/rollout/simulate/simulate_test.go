package simulate_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/rollout/policy"
	"narwharf/hooks/rollout/simulate"
	"narwharf/hooks/window"
)

func setup(t testing.TB, text string) *simulate.Setup {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return &simulate.Setup{
		Policy: p, Hosts: 200, Download: simulate.Span{Low: 20 * time.Second, High: 3 * time.Minute}, Switch: simulate.Span{Low: 5 * time.Second, High: 30 * time.Second},
		Labels: []simulate.Label{{Name: "canary", Value: "true", Hosts: *policy.Number(5)}},
		Start:  time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC),
	}
}

const waves = `{"rollout": {"waves": [{"name": "canary", "select": "canary=true", "max": 1, "bake": "10m"}, {"max": "25%", "bake": "10m"}, {}], "max_concurrency": "10%", "max_errors": "2%"}}`

func TestGoodRelease(t *testing.T) {
	s := setup(t, waves)
	r, err := simulate.Run(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	if r.State != "completed" || r.Well != 200 || r.MaxFlight > 20 || r.Took < 20*time.Minute || r.Took > time.Hour {
		t.Errorf("%+v", r)
	}
	again, err := simulate.Run(s, 1)
	if err != nil || again.Took != r.Took || again.Steps != r.Steps {
		t.Errorf("the same seed gives %s and %s (%v)", again.Took, r.Took, err)
	}
	var out bytes.Buffer
	if err := r.CSV(&out); err != nil || strings.Count(out.String(), "\n") < 10 || !strings.HasPrefix(out.String(), "seconds,wave,in_flight,well,bad\n") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// A release that is bad everywhere reaches the canary alone.
func TestBadRelease(t *testing.T) {
	s := setup(t, waves)
	s.Fail = 1
	r, err := simulate.Run(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	if r.State != "halted" || r.Exposed != 1 || r.Well != 0 {
		t.Errorf("%+v", r)
	}
	everyone := setup(t, `{"rollout": {"max_errors": "100%", "quarantine_after": 0}}`)
	everyone.Fail = 1
	if r, err = simulate.Run(everyone, 1); err != nil || r.Exposed < 150 {
		t.Errorf("without waves it reaches %+v (%v)", r, err)
	}
}

func TestOfflineAndWindows(t *testing.T) {
	s := setup(t, waves)
	s.Offline, s.Back = 0.2, 2*time.Hour
	r, err := simulate.Run(s, 3)
	if err != nil || r.State != "completed" || r.Offline < 20 || r.Well < 150 {
		t.Errorf("%+v (%v)", r, err)
	}
	s = setup(t, waves)
	night, err := window.Parse("22:00-23:00")
	if err != nil {
		t.Fatal(err)
	}
	s.Windows = []window.Window{night}
	if r, err = simulate.Run(s, 3); err != nil || r.State != "completed" || r.Took < 10*time.Hour {
		t.Errorf("it begins at noon and the window opens at ten at night: %+v (%v)", r, err)
	}
}

// All people that are asked say yes, and all checks.
func TestApprovals(t *testing.T) {
	s := setup(t, `{"rollout": {"waves": [{"max": 1, "bake": "5m", "approve": true, "checks": ["a", "b"]}, {}]}}`)
	s.Approve = time.Hour
	r, err := simulate.Run(s, 1)
	if err != nil || r.State != "completed" || r.Took < time.Hour {
		t.Errorf("%+v (%v)", r, err)
	}
}

// revert_all takes back what was well.
func TestRevertAll(t *testing.T) {
	s := setup(t, `{"rollout": {"waves": [{"max": 10}, {}], "max_concurrency": "10%", "on_failure": "revert_all"}}`)
	bad := policy.MustSelect("bad=yes")
	s.Labels, s.Bad = []simulate.Label{{Name: "bad", Value: "yes", Hosts: *policy.Number(20)}}, &bad
	r, err := simulate.Run(s, 5)
	if err != nil || r.State != "halted" || r.Well != 0 || r.Ended <= r.Took {
		t.Errorf("%+v (%v)", r, err)
	}
}

func TestParse(t *testing.T) {
	for _, text := range []string{"site=fra:25%", "canary=true:3"} {
		if _, err := simulate.ParseLabel(text); err != nil {
			t.Error(err)
		}
	}
	for _, text := range []string{"", "site=fra", "site:3", "=x:3", "a=b,c=d:3", "a=b:x"} {
		if l, err := simulate.ParseLabel(text); err == nil {
			t.Errorf("%q is read as %v", text, l)
		}
	}
	for _, text := range []string{"", "5", "5m..1m", "0s", "x..y"} {
		if s, err := simulate.ParseSpan(text); err == nil {
			t.Errorf("%q is read as %v", text, s)
		}
	}
}

// TestMillion is the number of docs/design: 1,000,000 hosts in a minute on one core.
func TestMillion(t *testing.T) {
	if os.Getenv("NARWHARF_MEASURE") == "" {
		t.Skip("NARWHARF_MEASURE=1 measures 1,000,000 hosts")
	}
	s := setup(t, waves)
	s.Hosts, s.Fail, s.Offline = 1_000_000, 0.002, 0.05
	began := time.Now()
	r, err := simulate.Run(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s for %d steps: %s, %d well, %d bad", time.Since(began), r.Steps, r.State, r.Well, r.Faults)
	if r.State != "completed" {
		t.Errorf("it is %s: %s", r.State, r.Why)
	}
}
