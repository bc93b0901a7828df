package hooks

import (
	"net/http"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/call"
	"narwharf/hooks/channel"
	"narwharf/hooks/reply"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/driver"
	"narwharf/signing/access/scope"
)

// promote is PUT /channels/{c}: a release, to which the channel turns.
func (s *Server) promote(c *call.Call, name string) error {
	var p api.Promotion
	if err := c.ReadJSON(channel.MaxPromotion, &p); err != nil {
		return err
	}
	if p.Head == nil || len(p.Entries) == 0 {
		return api.Errorf(api.BadRequest, "a promote needs a head and its entries: see docs/formats.md, or use narwharf promote")
	}
	as, err := promotes(c, name)
	if err != nil {
		return err
	}
	ctx, cancel := c.UntilStop()
	defer cancel()
	answer, err := s.channels.Promote(ctx, name, &channel.Promotion{
		Promotion: &p, Match: c.Req.Header.Get("If-Match"), DryRun: c.Req.URL.Query().Get("dry_run") == "1",
		By: c.Who.Name, RulesDenied: c.May(scope.Scope{Kind: scope.Admin}), May: c.Targets(name), Well: s.Fleet.Well(name),
		Rollouts: driver.Promotion{Driver: s.Rollouts, As: as},
	})
	if err != nil {
		return err
	}
	if answer.DryRun {
		if answer.Plan, err = s.rollouts.OfRelease(c, name, &p.Release); err != nil {
			return err
		}
	}
	if !answer.DryRun && !answer.Already {
		s.metrics.promoted.WithLabelValues(name).Inc()
		s.log.Info("promoted", "channel", name, "seq", answer.Seq, "targets", len(p.Entries), "changed", len(answer.Changed), "by", c.Who.Name)
	}
	if !answer.DryRun || answer.Already {
		c.W.Header().Set("Etag", channel.ETag(answer.Seq))
	}
	reply.JSON(c.W, http.StatusOK, answer)
	return nil
}

// promotes is how a release is promoted: at once (?now=1, for who operates the channel,
// with a reason), or in spite of a quarantine (?force=1).
func promotes(c *call.Call, name string) (as rollout.Promote, err error) {
	q := c.Req.URL.Query()
	as = rollout.Promote{Now: q.Get("now") == "1", Force: q.Get("force") == "1", Reason: strings.TrimSpace(q.Get("reason")), By: c.Who.Name}
	if !as.Now {
		return as, nil
	}
	if as.Reason == "" {
		return as, api.Errorf(api.BadRequest, "to go past waves, bakes and checks needs a reason: people will ask (--now --reason …)")
	}
	return as, c.May(scope.Scope{Kind: scope.Operate, Glob: name})
}

func (s *Server) deleteChannel(c *call.Call, name string) error {
	seq, err := s.channels.Delete(c.Ctx(), name, c.Req.Header.Get("If-Match"), c.Who.Name)
	if err != nil {
		return err
	}
	c.W.Header().Set("Etag", channel.ETag(seq))
	c.W.WriteHeader(http.StatusNoContent)
	return nil
}
