package hooks

import (
	"context"

	"narwharf/hooks/rollout/check"
	"narwharf/hooks/rollout/driver"
)

// bakes tells check.Loop what bakes, and the roll-outs what checks say.
type bakes struct{ *driver.Driver }

// Bakes implements check.Rollouts.
func (b bakes) Bakes() (list []check.Bake) {
	for _, w := range b.Wanted() {
		list = append(list, check.Bake{
			About: check.About{Channel: w.Channel, Seq: w.Seq, Wave: w.Wave, Paths: w.Paths}, Since: w.Since, Names: w.Names,
		})
	}
	return list
}

// ask asks the checks of what bakes until ctx ends.
func (s *Server) ask(ctx context.Context) {
	loop := check.Loop{Checks: s.checks.Set, Rollouts: bakes{s.Rollouts}, Log: s.log, Clock: s.clock}
	loop.Run(ctx)
}

// frozen says why nothing may change now, "" if it may.
func (s *Server) frozen() string {
	f := s.Rollouts.Frozen()
	if f == nil {
		return ""
	}
	return "there is a freeze: " + f.Reason
}
