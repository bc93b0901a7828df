package hooks

import (
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/channel"
	"narwharf/hooks/reply"
	"narwharf/signing/access/scope"
)

// promote is PUT /channels/{c}: a release, to which the channel turns.
func (s *Server) promote(c *call, name string) error {
	var p api.Promotion
	if err := s.readJSON(c, channel.MaxPromotion, &p); err != nil {
		return err
	}
	if p.Head == nil || len(p.Entries) == 0 {
		return api.Errorf(api.BadRequest, "a promote needs a head and its entries: see docs/formats.md, or use narwharf promote")
	}
	ctx, cancel := s.polls.UntilStop(c.ctx())
	defer cancel()
	answer, err := s.channels.Promote(ctx, name, &channel.Promotion{
		Promotion: &p, Match: c.req.Header.Get("If-Match"), DryRun: c.req.URL.Query().Get("dry_run") == "1",
		By: c.Who.Name, RulesDenied: c.May(scope.Scope{Kind: scope.Admin}), May: c.Targets(name), Well: s.Fleet.Well(name),
	})
	if err != nil {
		return err
	}
	if !answer.DryRun && !answer.Already {
		s.metrics.promoted.WithLabelValues(name).Inc()
		s.log.Info("promoted", "channel", name, "seq", answer.Seq, "targets", len(p.Entries), "changed", len(answer.Changed), "by", c.Who.Name)
	}
	if !answer.DryRun || answer.Already {
		c.w.Header().Set("Etag", channel.ETag(answer.Seq))
	}
	reply.JSON(c.w, http.StatusOK, answer)
	return nil
}

func (s *Server) deleteChannel(c *call, name string) error {
	seq, err := s.channels.Delete(c.ctx(), name, c.req.Header.Get("If-Match"), c.Who.Name)
	if err != nil {
		return err
	}
	c.w.Header().Set("Etag", channel.ETag(seq))
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
