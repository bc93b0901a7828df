package rollouts

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"narwharf/hooks/api"
	wire "narwharf/hooks/api/plan"
	"narwharf/hooks/call"
	"narwharf/hooks/plan"
	"narwharf/signing"
)

// differenceTime is how long closures are read at most.
const differenceTime = 20 * time.Second

// Difference is GET /channels/{c}/releases/{seq}/difference?from=SEQ|last-good. Without from it is the last
// release before it that completed well, or, where none is known, the one before it.
func (h *Handlers) Difference(c *call.Call, name string) error {
	seq, err := number(c.Param("seq"))
	if err != nil {
		return err
	}
	return c.InTurn(func() (any, error) {
		ctx, stop := context.WithTimeout(c.Req.Context(), differenceTime)
		defer stop()
		r, err := h.Channels.Past(ctx, name, seq)
		if err != nil {
			return nil, err
		}
		head, entries, err := r.Check()
		if err != nil {
			return nil, err
		}
		d := &wire.Difference{Channel: name, Seq: seq, Created: head.Created, Rollback: head.Rollback, Meta: head.Meta}
		if d.From, d.LastGood, err = h.before(ctx, name, seq, c.Req.URL.Query().Get("from")); err != nil {
			return nil, err
		}
		var before []signing.Entry
		if d.From != 0 {
			was, err := h.Channels.Past(ctx, name, d.From)
			if err != nil {
				return nil, err
			}
			if _, before, err = was.Check(); err != nil {
				return nil, err
			}
		}
		d.Changes, d.Unchanged, d.More = plan.Between(ctx, before, entries, h.Channels.Of)
		return d, nil
	})
}

func number(text string) (int64, error) {
	seq, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seq < 1 || seq > signing.MaxSeq {
		return 0, api.Errorf(api.BadRequest, "%q is not a seq", text)
	}
	return seq, nil
}

// before is the release that another is compared with, 0 if there is none.
func (h *Handlers) before(ctx context.Context, name string, seq int64, from string) (before int64, good bool, err error) {
	well := h.Driver.LastWell(name)
	switch {
	case from == "last-good":
		before, err = h.seqOf(h.Channels.Get(name), from)
		return before, true, err
	case from != "":
		before, err = number(from)
		return before, before == well, err
	case well != 0 && well < seq:
		return well, true, nil
	}
	list, _, err := h.Channels.History(ctx, name, 1, seq)
	if err != nil || len(list) == 0 {
		return 0, false, err
	}
	var item api.HistoryItem
	err = json.Unmarshal(list[0], &item)
	return item.Seq, false, err
}
