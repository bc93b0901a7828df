package plan

import (
	"cmp"
	"slices"

	"narwharf/hooks/api/plan"
	"narwharf/hooks/rollout/policy"
	"narwharf/hooks/rollout/roster"
)

// waves says in which wave each host would be if all waves opened now, by the rules of
// hooks/rollout/engine: of hosts that wait, those that are online first, and then in an order that
// is another with each release.
func (a *Ask) waves(p *plan.Plan, all []*changing) {
	if a.Policy == nil {
		return
	}
	seq := cmp.Or(a.Seq, a.From+1)
	for i, spec := range a.Policy.All() {
		var pick []*changing
		for _, c := range all {
			if c.wave == 0 && spec.Select.Matches(c.Labels) {
				pick = append(pick, c)
			}
		}
		n := len(pick)
		if spec.Max != nil {
			n = min(n, spec.Max.Up(n))
		}
		if n < len(pick) {
			slices.SortFunc(pick, func(x, y *changing) int {
				return roster.Picked(x.absent(), y.absent(), roster.Turn(x.Host.Host, seq), roster.Turn(y.Host.Host, seq))
			})
		}
		w := plan.Wave{Name: a.Policy.WaveText(i), Select: spec.Select.String(), Hosts: n, Approve: spec.Approve, Checks: spec.Checks}
		if d := a.Policy.Baking(i, a.Back); d > 0 {
			w.Bake = policy.Duration(d).String()
		}
		for _, c := range pick[:n] {
			c.wave = i + 1
			if !c.Online {
				w.Offline++
			}
		}
		p.Waves = append(p.Waves, w)
	}
}

// absent is roster.Host.Absent, but that all who are not heard of are the same.
func (c *changing) absent() int {
	if c.Online {
		return 0
	}
	return 1
}
