package uploads

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state"
	"narwharf/hooks/dashboard/store"
)

// In the state, each value JSON of what is listed: all servers that share it add to the same.
const (
	bucket     = "uploads/seen"
	sendersKey = "senders" // []store.Sender
	refusedKey = "refused" // []store.Refusal, the oldest first
	lock       = bucket
)

const (
	every  = 10 * time.Second    // between two writes, if there is anything to write
	silent = 90 * 24 * time.Hour // after which a sender is forgotten
)

// Seen implements store.Uploads: what is in the state, with what this server has not written yet.
func (b *Book) Seen(ctx context.Context, s state.Store) (senders []store.Sender, refused []store.Refusal, err error) {
	var kept seen
	err = s.View(ctx, func(tx state.Reader) error { return kept.read(tx) })
	if err != nil {
		return nil, nil, fmt.Errorf("read who uploads: %w", err)
	}
	b.mu.Lock()
	kept.add(&b.new)
	b.mu.Unlock()
	slices.SortFunc(kept.senders, func(x, y store.Sender) int {
		return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), strings.Compare(x.Name, y.Name))
	})
	slices.Reverse(kept.refused)
	return kept.senders, kept.refused, nil
}

// Run writes what is new until ctx ends, and then what is left.
func (b *Book) Run(ctx context.Context, s state.Store, log *slog.Logger) {
	write := func(ctx context.Context) {
		if err := b.write(ctx, s); err != nil && ctx.Err() == nil {
			log.Error("who uploaded was not written; it is tried again", "error", err)
		}
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			write(ctx)
		}
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	write(ctx)
}

// write writes what is new. After an error the next one does.
func (b *Book) write(ctx context.Context, s state.Store) error {
	b.mu.Lock()
	news := b.new
	b.new = seen{}
	b.mu.Unlock()
	if len(news.senders)+len(news.refused) == 0 {
		return nil
	}
	err := s.Update(ctx, []string{lock}, func(tx state.Tx) error {
		var kept seen
		if err := kept.read(tx); err != nil {
			return err
		}
		now, err := tx.Now()
		if err != nil {
			return err
		}
		kept.add(&news)
		kept.senders = slices.DeleteFunc(kept.senders, func(s store.Sender) bool { return now.Sub(s.Last) > silent })
		return errors.Join(state.PutJSON(tx, bucket, sendersKey, kept.senders), state.PutJSON(tx, bucket, refusedKey, kept.refused))
	})
	if err == nil || errors.Is(err, state.ErrUncertain) { // better lost than counted twice
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	news.add(&b.new)
	b.new = news
	return err
}

// seen is senders, in no order, and refused uploads, the oldest first.
type seen struct {
	senders []store.Sender
	refused []store.Refusal
}

func (s *seen) read(tx state.Reader) error {
	senders, err := state.GetJSON[[]store.Sender](tx, bucket, sendersKey)
	if err != nil {
		return err
	}
	refused, err := state.GetJSON[[]store.Refusal](tx, bucket, refusedKey)
	if err != nil {
		return err
	}
	if senders != nil {
		s.senders = *senders
	}
	if refused != nil {
		s.refused = *refused
	}
	return nil
}

// add adds what came later, within the bounds: who was silent for longest goes, and the oldest refusal.
func (s *seen) add(news *seen) {
	for i := range news.senders {
		s.count(&news.senders[i])
	}
	s.refused = append(s.refused, news.refused...)
	slices.SortStableFunc(s.refused, func(x, y store.Refusal) int { return x.At.Compare(y.At) })
	s.refused = slices.Delete(s.refused, 0, max(len(s.refused)-maxRefused, 0))
}

// count adds what one sender did.
func (s *seen) count(news *store.Sender) {
	at := slices.IndexFunc(s.senders, func(o store.Sender) bool { return o.Name == news.Name })
	if at < 0 {
		if s.senders = append(s.senders, *news); len(s.senders) > maxSenders {
			oldest := slices.MinFunc(s.senders, func(x, y store.Sender) int { return x.Last.Compare(y.Last) })
			s.senders = slices.DeleteFunc(s.senders, func(o store.Sender) bool { return o.Name == oldest.Name })
		}
		return
	}
	is := &s.senders[at]
	is.Paths, is.Bytes, is.Refused = is.Paths+news.Paths, is.Bytes+news.Bytes, is.Refused+news.Refused
	if news.Last.After(is.Last) {
		is.Last = news.Last
	}
}
