package hooks

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/call"
	"narwharf/hooks/channel"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
	"narwharf/signing/access/scope"
)

// release is the current release of a channel, and its systems.
func (s *Server) release(name string) (seq int64, paths []string, err error) {
	l := s.channels.Get(name)
	if l.State.Seq == 0 {
		return 0, nil, l.Absent()
	}
	for i := range l.Entries {
		paths = append(paths, l.Entries[i].StorePath)
	}
	slices.Sort(paths)
	return l.Head.Seq, slices.Compact(paths), nil
}

// ofChannel is an endpoint about the channel in its path.
func ofChannel(serve func(c *call.Call, name string) error) endpoint {
	return func(c *call.Call) error { return serve(c, c.Param("channel")) }
}

// listChannels lists all to whoever may pull, and to others those that they may look at.
func (s *Server) listChannels(c *call.Call) error {
	list := s.channels.List()
	if c.Need.Kind != scope.Pull {
		sees := c.Sees()
		list = slices.DeleteFunc(list, func(one *api.Channel) bool { return !sees(one.Channel) })
	}
	return c.JSON(http.StatusOK, map[string]any{"channels": list}, nil)
}

// getChannel answers with the channel and its whole release. An absent or
// deleted one is 404 with the ETag that creates it; it can be waited for.
func (s *Server) getChannel(c *call.Call, name string) error {
	return c.Poll(longpoll.Poll{Topics: []string{audit.Channel(name)}, Look: func() (longpoll.Answer, error) {
		l := s.channels.Get(name)
		if l.Release != nil {
			text, etag, err := l.Text()
			return longpoll.Answer{Status: http.StatusOK, ETag: etag, Older: channel.ETag(l.State.Seq), Body: text}, err
		}
		e := l.Absent()
		e.Channel = l.Describe()
		text, err := json.Marshal(e)
		return longpoll.Answer{Status: e.Status, ETag: channel.ETag(l.State.Seq), Body: append(text, '\n')}, err
	}})
}

func (s *Server) getHistory(c *call.Call, name string) (err error) {
	limit := 50
	if q := c.Req.URL.Query().Get("limit"); q != "" {
		if limit, err = strconv.Atoi(q); err != nil || limit < 1 || limit > 1000 {
			return api.Errorf(api.BadRequest, "limit %q is not between 1 and 1000", q)
		}
	}
	below := int64(0)
	if q := c.Req.URL.Query().Get("below"); q != "" {
		if below, err = strconv.ParseInt(q, 10, 64); err != nil || below < 1 || below > signing.MaxSeq {
			return api.Errorf(api.BadRequest, "below %q is not a seq", q)
		}
	}
	return c.InTurn(func() (any, error) {
		items, next, err := s.channels.History(c.Req.Context(), name, limit, below)
		answer := map[string]any{"channel": name, "history": items}
		if err == nil && c.Req.URL.Query().Get("hosts") == "1" {
			if err = c.May(scope.Scope{Kind: scope.Read, Glob: name}); err == nil {
				answer["hosts"], err = s.memory.Endings(s.set, name)
			}
		}
		if next > 0 {
			answer["next"] = next
		}
		return answer, err
	})
}

// getRelease serves an earlier release whole: what a rollback builds on.
func (s *Server) getRelease(c *call.Call, name string) error {
	seq, err := strconv.ParseInt(c.Param("seq"), 10, 64)
	if err != nil || seq < 1 || seq > signing.MaxSeq {
		return api.Errorf(api.BadRequest, "%q is not a seq", c.Param("seq"))
	}
	return c.InTurn(func() (any, error) { return s.channels.Past(c.Req.Context(), name, seq) })
}

// getStorePath answers shell scripts: nix-store -r $(curl …).
func (s *Server) getStorePath(c *call.Call, name string) error {
	target := c.Req.URL.Query().Get("target")
	return c.Poll(longpoll.Poll{Topics: []string{audit.Channel(name)}, Look: func() (a longpoll.Answer, err error) {
		l := s.channels.Get(name)
		if l.Release == nil {
			return a, l.Absent()
		}
		e := l.Entry(target)
		if e == nil && target == "" {
			return a, api.Errorf(api.BadRequest, "channel %s has a system for each of %d targets: add ?target=NAME", name, len(l.Entries))
		}
		if e == nil {
			return a, api.Errorf(api.NotFound, "release %d of channel %s has no target %q", l.Head.Seq, name, target)
		}
		return longpoll.Answer{Status: http.StatusOK, ETag: channel.ETag(l.Head.Seq), Body: []byte(e.StorePath + "\n"), Type: "text/plain; charset=utf-8"}, nil
	}})
}
