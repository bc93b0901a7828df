package nixos_test

import (
	"bytes"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// TestDryRun: what it says comes true, and saying it changes nothing.
func TestDryRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(w *sim.World)
		first  string // line
		words  string
	}{
		{"nothing", func(w *sim.World) { w.Promote(2, pathA, signing.Auto) }, "would change nothing: release 2", "runs      " + pathA},
		{"a release", func(w *sim.World) { w.Promote(2, pathB, signing.Auto) }, "would go to release 2 (auto)", "1 of 1 paths"},
		{"that is here", func(w *sim.World) {
			w.Promote(2, pathB, signing.Auto)
			w.Valid[pathB], w.Roots["x"] = true, pathB
		}, "would go to release 2 (auto)", "not needed"},
		{"that needs a reboot", func(w *sim.World) {
			w.Systems[pathB].Reboot = []string{"kernel"}
			w.Promote(2, pathB, signing.Auto)
			w.Valid[pathB], w.Roots["x"] = true, pathB
		}, "would go to release 2 (auto)", "not enough for: kernel"},
		{"without a grant", func(w *sim.World) {
			w.Promote(2, pathB, signing.Auto)
			w.Wants.Grant, w.Wants.WaitingFor = nil, &api.Waiting{Kind: api.WaitBake, Detail: "wave 1"}
		}, "would go to release 2 (auto)", "waits for bake: wave 1"},
		{"with other bytes", func(w *sim.World) {
			w.Promote(2, pathB, signing.Auto)
			w.Valid[pathB], w.Other[pathB], w.Roots["x"] = true, true, pathB
		}, "would not get far: stage_failed", "differs   " + pathB},
		{"signed by nobody whose bytes are believed", func(w *sim.World) {
			w.Promote(2, pathB, signing.Auto)
			w.Downloads = []signing.PublicKey{sim.NewPromoter().Key.Public()}
		}, "would not get far: stage_failed", "lacks a signature by a key whose bytes this host believes [deploy-1:"},
		{"without an agent", func(w *sim.World) {
			w.Promote(2, pathB, signing.Auto)
			w.Valid[pathB], w.Roots["x"] = true, pathB
			w.Systems[pathB].NoAgent = "it has no unit narwharf.service"
		}, "would do nothing: it is rejected", "it has no unit narwharf.service"},
		{"of another key", func(w *sim.World) { w.Wants.Pointer = sim.NewPromoter().Pointer(2, pathB, signing.Auto) }, "would do nothing: it is rejected", "signatures are good"},
		{"for others", func(w *sim.World) { w.Wants = &api.Desired{Channel: sim.Channel, Seq: 2} }, "would do nothing: it is not_in_release", "no entry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, sim.System{})
			c.before(w)
			journal, statuses, roots := bytes.Clone(w.Journal), len(w.Statuses), len(w.Roots)
			p, err := w.Agent(w.Keys.Rules()).DryRun(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if text := p.String(); !strings.HasPrefix(text, c.first) || !strings.Contains(text, c.words) || strings.Contains(text, "%!") {
				t.Errorf("%s", text)
			}
			if !bytes.Equal(w.Journal, journal) || len(w.Statuses) != statuses || len(w.Roots) != roots || w.Started() != 0 {
				t.Error("it did something")
			}
		})
	}
}

// TestDryRunOfAFirstAdoption is a host that was never followed: it runs what
// the channel has, and nothing would be done to it.
func TestDryRunOfAFirstAdoption(t *testing.T) {
	w := sim.New(&sim.System{Path: pathA})
	w.Promote(7, pathA, signing.Auto)
	p, err := w.Agent(w.Keys.Rules()).DryRun(t.Context())
	if err != nil || !p.Nothing() || w.Journal != nil {
		t.Fatal(err, p)
	}
	ends(t, w, api.OK, pathA, pathA, pathA)
	if w.Started() != 0 {
		t.Error("it was switched")
	}
}

func TestDryRunWhileUnderWay(t *testing.T) {
	w := until(t, released(sim.System{}, signing.Switch)(t), api.Probation)
	p, err := w.Agent(w.Keys.Rules()).DryRun(t.Context())
	if err != nil || !strings.Contains(p.String(), "under way") {
		t.Fatal(err, p)
	}
}
