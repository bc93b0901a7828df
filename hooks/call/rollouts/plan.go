package rollouts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"narwharf/hooks/api"
	wire "narwharf/hooks/api/plan"
	"narwharf/hooks/call"
	"narwharf/hooks/channel"
	"narwharf/hooks/closure"
	"narwharf/hooks/plan"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/release"
	"narwharf/narinfo/clip"
	"narwharf/signing"
	"narwharf/signing/access/scope"
)

// Plan is GET /channels/{c}/plan?to=PATH|SEQ|last-good&target=T: what that would do to the hosts of
// the channel. Without to it is about the release that is there.
func (h *Handlers) Plan(c *call.Call, name string) error {
	return c.InTurn(func() (any, error) {
		reader := h.Channels.Reader()
		ask, rev, err := h.asked(c, name, reader)
		if err != nil {
			return nil, err
		}
		p, err := h.plan(c.Req.Context(), ask, reader)
		if err != nil {
			return nil, err
		}
		refused, err := h.refused(c.Req.Context(), ask, rev)
		p.Refused = cmp.Or(p.Refused, refused)
		return p, err
	})
}

// plan is what hosts would do, by the rules that hold now.
func (h *Handlers) plan(ctx context.Context, ask *plan.Ask, reader *closure.Reader) (*wire.Plan, error) {
	list, _, err := h.Fleet.List(func(channel string) bool { return channel == ask.Channel })
	if err != nil {
		return nil, err
	}
	rules := h.Policies.Of(ask.Channel)
	ask.Hosts, ask.Policy, ask.ByHand = list, rules.Rollout, rules.RebootSlots == 0
	ask.Held = func(labels map[string]string) string {
		if hold := h.Driver.Held(labels); hold != nil {
			return hold.Reason
		}
		return ""
	}
	quarantined := make(map[string]string)
	for _, q := range h.Driver.Quarantined() {
		quarantined[q.Path] = fmt.Sprintf("%d hosts of %s went back from it by themselves", q.Hosts, q.Channel)
	}
	ask.Quarantined = func(path string) string { return quarantined[path] }
	if f := h.Driver.Frozen(); f != nil {
		ask.Frozen = f.Reason
	}
	return plan.Of(ctx, ask, reader)
}

// OfRelease is the plan of a release that somebody would promote, nil if he may not look at the
// hosts of the channel.
func (h *Handlers) OfRelease(c *call.Call, name string, r *signing.Release) (*wire.Plan, error) {
	if c.May(scope.Scope{Kind: scope.Read, Glob: name}) != nil {
		return nil, nil
	}
	head, entries, err := r.Check()
	if err != nil {
		return nil, err
	}
	ask := &plan.Ask{Channel: name, From: h.Channels.Get(name).State.Current, Seq: head.Seq, Entries: entries, Back: head.Rollback}
	return h.plan(c.Req.Context(), ask, h.Channels.Reader())
}

// refused says why a promote of what is asked about would not be taken now. Only the server that
// drives the roll-outs is asked: to look takes the lease from nobody.
func (h *Handlers) refused(ctx context.Context, ask *plan.Ask, rev string) (*wire.Refusal, error) {
	if ask.Seq == ask.From || !h.Driver.State().Leads {
		return nil, nil
	}
	seq := ask.From + 1
	of := release.Of(&signing.Head{Seq: seq, Meta: map[string]string{"rev": rev}}, ask.Entries)
	err := h.Driver.Gate(ctx, rollout.Promote{Channel: ask.Channel, Seq: seq, Rollback: ask.Back}, &release.Release{Of: of})
	var e *api.Error
	if errors.As(err, &e) && e.Status == http.StatusConflict {
		return &wire.Refusal{Kind: string(e.Kind), Message: e.Message}, nil
	}
	return nil, err
}

// asked is what a request asks about, and the rev of the release that it is.
func (h *Handlers) asked(c *call.Call, name string, reader *closure.Reader) (ask *plan.Ask, rev string, err error) {
	now := h.Channels.Get(name)
	q := c.Req.URL.Query()
	to, target := q.Get("to"), q.Get("target")
	ask = &plan.Ask{Channel: name, From: now.State.Current}
	if target != "" && !strings.HasPrefix(to, "/") {
		return nil, "", api.Errorf(api.BadRequest, "target=%s says for whom a path is: add to=/nix/store/…", target)
	}
	if strings.HasPrefix(to, "/") {
		ask.To = to
		return ask, "", onePath(ask, now, target, reader)
	}
	seq, err := h.seqOf(now, to)
	if err != nil {
		return nil, "", err
	}
	ask.Seq = seq
	if now.Release != nil && now.Head.Seq == seq {
		ask.Entries, ask.Back = now.Entries, now.Head.Rollback
		return ask, now.Head.Meta["rev"], nil
	}
	r, err := h.Channels.Past(c.Req.Context(), name, seq)
	if err != nil {
		return nil, "", err
	}
	head, entries, err := r.Check()
	if err != nil {
		return nil, "", err
	}
	ask.Entries, ask.Back = entries, seq < ask.From
	return ask, head.Meta["rev"], nil
}

// seqOf is the release that is meant.
func (h *Handlers) seqOf(now *channel.Snapshot, to string) (int64, error) {
	switch to {
	case "":
		if now.Release == nil {
			return 0, api.Errorf(api.NotFound, "%s: say what it is about, as ?to=/nix/store/…", now.AbsentText())
		}
		return now.Head.Seq, nil
	case "last-good":
		if seq := h.Driver.LastWell(now.Name); seq != 0 {
			return seq, nil
		}
		if now.State.Well == 0 {
			return 0, api.Errorf(api.NotFound, "no release of %s is known to be good: narwharf channel history %[1]s lists what there is, to=SEQ names one", now.Name)
		}
		return now.State.Well, nil
	}
	seq, err := strconv.ParseInt(to, 10, 64)
	if err != nil || seq < 1 || seq > signing.MaxSeq {
		return 0, api.Errorf(api.BadRequest, "to=%s is neither a store path nor a seq nor last-good", to)
	}
	return seq, nil
}

// onePath is a path for all hosts, or for those of one target.
func onePath(ask *plan.Ask, now *channel.Snapshot, target string, reader *closure.Reader) error {
	e := signing.Entry{Target: signing.Everyone, StorePath: ask.To, Action: signing.Auto}
	root, err := e.Path()
	if err != nil {
		return api.Errorf(api.BadRequest, "to: %v", err)
	}
	m, lost, err := reader.Manifest(root)
	switch {
	case err != nil:
		return err
	case len(lost) > 0:
		return api.Errorf(api.ClosureIncomplete, "what %s would do cannot be told before it is here: the cache lacks %s of its closure, %s first; nix copy --refresh --to this cache, then ask again", ask.To, clip.Count(len(lost), "path"), lost[0])
	case m.StoreDir != e.StoreDir():
		return api.Errorf(api.BadRequest, "%s is not in %s, the store of this cache", ask.To, m.StoreDir)
	}
	e.Closure = m.Digest()
	if target == "" {
		ask.Entries = []signing.Entry{e}
		return nil
	}
	e.Target = target
	if now.Release != nil {
		for _, was := range now.Entries {
			if was.Target == signing.Everyone {
				return api.Errorf(api.BadRequest, "%s has one system for all of its hosts, and no target %s", now.Name, target)
			}
			if was.Target != target {
				ask.Entries = append(ask.Entries, was)
			}
		}
	}
	ask.Entries = append(ask.Entries, e)
	slices.SortFunc(ask.Entries, func(a, b signing.Entry) int { return strings.Compare(a.Target, b.Target) })
	return nil
}
