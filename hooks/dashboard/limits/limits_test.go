package limits

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/dashboard/frame/frametest"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
)

var until = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func world(t *testing.T, scopes ...string) *frametest.World {
	w := frametest.New(t, scopes, Room())
	site, err := policy.ParseSelector("site=fra")
	if err != nil {
		t.Fatal(err)
	}
	w.API["GET /api/v1/freeze"] = rollouts.Freeze{Frozen: true, Freeze: &rollout.Hold{Reason: "fire", By: "ada", Until: until}}
	w.API["GET /api/v1/holds"] = map[string]any{"holds": []rollouts.Hold{{Name: "fra", Hold: rollout.Hold{Select: site, Reason: "power works", By: "bob"}}}}
	w.API["GET /api/v1/holds/fra"] = rollouts.Hold{Name: "fra", Hold: rollout.Hold{Select: site, Reason: "power works", By: "bob"}}
	w.API["GET /api/v1/budgets"] = map[string]any{"budgets": []rollouts.Budget{{Name: "quorum", Budget: rollout.Budget{Select: site, MaxUnavailable: *policy.Number(1)}, Hosts: 3, Unavailable: 1}}}
	q := rollout.Quarantine{Path: "/nix/store/00000000000000000000000000000000-sys", Channel: "web", Seq: 4, Hosts: 2, At: until}
	w.API["GET /api/v1/quarantine"] = map[string]any{"quarantined": []rollout.Quarantine{q}}
	w.API["GET /api/v1/quarantine/00000000000000000000000000000000-sys"] = q
	return w
}

// TestLimits: what there is, and buttons for those who may press them.
func TestLimits(t *testing.T) {
	buttons := []string{"/ui/freeze/end", "/ui/holds/fra/end", "/ui/quarantine/00000000000000000000000000000000-sys/end", "narwharf hold set"}
	world(t, "operate").See("/ui/limits", append(buttons, "fire", "2026-03-02 00:00:00 UTC", "power works", "site=fra", "quorum", `<span class="tag warn">full</span>`, "release 4")...)
	w := world(t, "read:*")
	w.Absent("/ui/limits", append(buttons, "/ui/freeze\"")...)
	for _, path := range []string{"/ui/freeze", "/ui/freeze/end", "/ui/holds/fra/end"} {
		if a := w.Post(path, url.Values{"reason": {"x"}}); a.Status < 300 || len(w.Sent) > 0 {
			t.Errorf("%s: %d, sent %q", path, a.Status, w.Sent)
		}
	}
}

// TestFreeze: with reason and end, and lifted.
func TestFreeze(t *testing.T) {
	w := world(t, "operate")
	w.See("/ui/freeze", "Freeze all channels", "required", "4 hours")
	if a := w.Post("/ui/freeze", url.Values{"reason": {""}, "for": {"4h"}}); a.Status != 400 || !strings.Contains(a.Text, "Say why") || len(w.Sent) > 0 {
		t.Errorf("without a reason: %+v", a)
	}
	w.Post("/ui/freeze", url.Values{"reason": {"fire"}, "for": {"4h"}})
	w.Post("/ui/freeze", url.Values{"reason": {"fire"}, "for": {""}})
	w.See("/ui/freeze/end", "ada froze: fire")
	w.Post("/ui/freeze/end", nil)
	w.See("/ui/holds/fra/end", "bob held them: power works")
	w.Post("/ui/holds/fra/end", nil)
	w.See("/ui/quarantine/00000000000000000000000000000000-sys/end", "2 hosts of web went back from it")
	w.Post("/ui/quarantine/00000000000000000000000000000000-sys/end", nil)
	if want := []string{
		`PUT /api/v1/freeze {"reason":"fire","until":"2026-03-01T16:00:00Z"}`, `PUT /api/v1/freeze {"reason":"fire"}`, "DELETE /api/v1/freeze",
		"DELETE /api/v1/holds/fra", "DELETE /api/v1/quarantine/00000000000000000000000000000000-sys",
	}; !slices.Equal(w.Sent, want) {
		t.Errorf("%q", w.Sent)
	}
	w.API["GET /api/v1/freeze"] = rollouts.Freeze{}
	w.See("/ui/freeze/end", "There is no freeze any more.")
	w.See("/ui/limits", "There is no freeze", "Freeze all channels…")
}

// TestNasties: whatever reasons and names say.
func TestNasties(t *testing.T) {
	w := world(t, "admin")
	w.Nasties("/ui/limits", func(text string) {
		f, h, q := &rollout.Hold{}, rollouts.Hold{}, rollout.Quarantine{}
		frametest.Fill(f, text, nil)
		frametest.Fill(&h, text, nil)
		frametest.Fill(&q, text, nil)
		w.API["GET /api/v1/freeze"] = rollouts.Freeze{Frozen: true, Freeze: f}
		w.API["GET /api/v1/holds"] = map[string]any{"holds": []rollouts.Hold{h}}
		w.API["GET /api/v1/quarantine"] = map[string]any{"quarantined": []rollout.Quarantine{q}}
	})
	w.Nasties("/ui/freeze/end", func(text string) {
		f := &rollout.Hold{}
		frametest.Fill(f, text, nil)
		w.API["GET /api/v1/freeze"] = rollouts.Freeze{Frozen: true, Freeze: f}
	})
}
