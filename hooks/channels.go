package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strconv"

	"narwharf/hooks/api"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
	"narwharf/signing/access"
)

var pullScope = access.Scope{Kind: access.Pull}

func (s *Server) describe(l *live) *api.Channel {
	return &api.Channel{
		Channel: l.name, Seq: l.state.Seq, Deleted: l.state.Deleted, Kind: l.state.Kind,
		Keys: l.state.Keys, Threshold: l.state.Threshold, Release: l.release,
		Promoted: l.meta.Promoted, By: l.meta.By,
	}
}

// channelParam reads and checks the name, and the right to read.
func (s *Server) channelParam(c *call) (string, error) {
	name := c.param("channel")
	if err := signing.CheckChannel(name); err != nil {
		return "", api.Errorf(api.BadRequest, "%v", err)
	}
	return name, c.need(pullScope)
}

func (s *Server) listChannels(c *call) error {
	if err := c.need(pullScope); err != nil {
		return err
	}
	s.mu.RLock()
	list := make([]*api.Channel, 0, len(s.channels))
	for _, l := range s.channels {
		d := s.describe(l)
		d.Release = nil
		list = append(list, d)
	}
	s.mu.RUnlock()
	slices.SortFunc(list, func(a, b *api.Channel) int {
		if a.Channel < b.Channel {
			return -1
		}
		return 1
	})
	writeJSON(c.w, http.StatusOK, map[string]any{"channels": list})
	return nil
}

// getChannel answers with the channel and its whole release. An absent or
// deleted one is 404 with the ETag that creates it; it can be waited for.
func (s *Server) getChannel(c *call) error {
	name, err := s.channelParam(c)
	if err != nil {
		return err
	}
	return s.poll(c, []string{channelTopic(name)}, nil, func() (longpoll.Answer, error) {
		l := s.channel(name)
		status, value := http.StatusOK, any(s.describe(l))
		if l.release == nil {
			e := api.Errorf(api.NotFound, "%s", absentText(l))
			e.Channel = s.describe(l)
			status, value = e.Status, e
		}
		text, err := json.Marshal(value)
		return longpoll.Answer{Status: status, ETag: etagOf(l.state.Seq), Body: append(text, '\n')}, err
	})
}

func absentText(l *live) string {
	if l.state.Deleted {
		return fmt.Sprintf("the channel %s was deleted after seq %d", l.name, l.state.Seq)
	}
	return fmt.Sprintf("there is no channel %s; the first promote makes it", l.name)
}

func (s *Server) deleteChannel(c *call) error {
	name := c.param("channel")
	if err := signing.CheckChannel(name); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	if err := c.need(access.Scope{Kind: access.Promote, Glob: name}); err != nil {
		return err
	}
	defer s.promoting.Lock(name)()
	now := s.channel(name)
	if now.release == nil {
		return api.Errorf(api.NotFound, "%s", absentText(now))
	}
	if err := s.precondition(c, now); err != nil {
		return err
	}
	next := now.state
	next.Deleted, next.Current = true, 0
	tomb, err := json.Marshal(next)
	if err != nil {
		return err
	}
	// Without this file a rebuild would bring the channel back.
	if err := s.files.Write(tombName(name), tomb); err != nil {
		return err
	}
	_, err = s.store.update(s.clock(), func(ch *change) error {
		ch.note(api.Event{Kind: "channel.deleted", By: c.who.Name, Channel: name, Seq: next.Seq, Text: fmt.Sprintf("deleted %s after seq %d; its hosts keep what they run", name, next.Seq)})
		return ch.putChannel(name, &next)
	})
	if err != nil {
		return err
	}
	s.setChannel(&live{name: name, state: next})
	s.noted(name, channelTopic(name))
	c.w.Header().Set("Etag", etagOf(next.Seq))
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func tombName(channel string) string { return "channels/" + channel + "/deleted" }

func (s *Server) getHistory(c *call) error {
	name, err := s.channelParam(c)
	if err != nil {
		return err
	}
	limit := 50
	if q := c.req.URL.Query().Get("limit"); q != "" {
		if limit, err = strconv.Atoi(q); err != nil || limit < 1 || limit > 1000 {
			return api.Errorf(api.BadRequest, "limit %q is not between 1 and 1000", q)
		}
	}
	if s.channel(name).state.Seq == 0 {
		return api.Errorf(api.NotFound, "%s", absentText(s.channel(name)))
	}
	seqs, metas, err := s.store.releases(name, limit)
	if err != nil {
		return err
	}
	items := make([]api.HistoryItem, 0, len(seqs))
	for i, seq := range seqs {
		item := api.HistoryItem{Seq: seq, Promoted: metas[i].Promoted, By: metas[i].By, Targets: []api.HistoryTarget{}}
		_, head, entries, err := loadRelease(s.files, name, seq)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			item.Promoted = metas[i].of(head).Promoted
			item.Created, item.Rollback, item.Order, item.Meta = head.Created, head.Rollback, head.Order, head.Meta
			for _, e := range entries {
				item.Targets = append(item.Targets, api.HistoryTarget{Target: e.Target, StorePath: e.StorePath, Action: string(e.Action)})
			}
		}
		items = append(items, item)
	}
	writeJSON(c.w, http.StatusOK, map[string]any{"channel": name, "history": items})
	return nil
}

// getRelease serves an earlier release whole: what a rollback builds on.
func (s *Server) getRelease(c *call) error {
	name, err := s.channelParam(c)
	if err != nil {
		return err
	}
	seq, err := strconv.ParseInt(c.param("seq"), 10, 64)
	if err != nil || seq < 1 || seq > signing.MaxSeq {
		return api.Errorf(api.BadRequest, "%q is not a seq", c.param("seq"))
	}
	f, _, _, err := loadRelease(s.files, name, seq)
	if errors.Is(err, fs.ErrNotExist) {
		return api.Errorf(api.NotFound, "channel %s has no release %d: narwharf channel history %s lists what there is", name, seq, name)
	}
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, f.Release)
	return nil
}

// getStorePath answers shell scripts: nix-store -r $(curl …).
func (s *Server) getStorePath(c *call) error {
	name, err := s.channelParam(c)
	if err != nil {
		return err
	}
	target := c.req.URL.Query().Get("target")
	return s.poll(c, []string{channelTopic(name)}, nil, func() (longpoll.Answer, error) {
		l := s.channel(name)
		if l.release == nil {
			return longpoll.Answer{}, api.Errorf(api.NotFound, "%s", absentText(l))
		}
		e := l.entry(target)
		if e == nil && target == "" {
			return longpoll.Answer{}, api.Errorf(api.BadRequest, "channel %s has a system for each of %d targets: add ?target=NAME", name, len(l.entries))
		}
		if e == nil {
			return longpoll.Answer{}, api.Errorf(api.NotFound, "release %d of channel %s has no target %q", l.head.Seq, name, target)
		}
		return longpoll.Answer{Status: http.StatusOK, ETag: etagOf(l.head.Seq), Body: []byte(e.StorePath + "\n"), Type: "text/plain; charset=utf-8"}, nil
	})
}
