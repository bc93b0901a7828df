// Package rollouts answers what is about roll-outs: what one would do, how one goes, and what
// people say of it.
package rollouts

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/call"
	"narwharf/hooks/channel"
	"narwharf/hooks/desired"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/policy"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/driver"
	"narwharf/signing"
)

// Handlers answer it.
type Handlers struct {
	Channels *channel.Channels
	Policies *policy.Policies
	Fleet    *desired.Fleet
	Driver   *driver.Driver
	Clock    func() time.Time
}

const maxBody = 64 << 10

// List is GET /rollouts?channel=C.
func (h *Handlers) List(c *call.Call) error {
	sees, of := c.Sees(), c.Req.URL.Query().Get("channel")
	return c.Poll(longpoll.Poll{Topics: []string{driver.Topic(of)}, Look: func() (longpoll.Answer, error) {
		list := h.Driver.List(func(channel string) bool { return (of == "" || of == channel) && sees(channel) })
		return longpoll.JSON(map[string]any{"rollouts": list})
	}})
}

// Show is GET /rollouts/{channel} and GET /rollouts/{channel}/{seq}.
func (h *Handlers) Show(c *call.Call, name string) error {
	seq := int64(0)
	if text := c.Param("seq"); text != "" {
		var err error
		if seq, err = strconv.ParseInt(text, 10, 64); err != nil || seq < 1 || seq > signing.MaxSeq {
			return api.Errorf(api.BadRequest, "%q is not a seq", text)
		}
	}
	return c.Poll(longpoll.Poll{Topics: []string{driver.Topic(name)}, Look: func() (longpoll.Answer, error) {
		s, err := h.Driver.Show(name, seq)
		if err != nil {
			return longpoll.Answer{}, err
		}
		return longpoll.JSON(s)
	}})
}

// needReason are verbs that nobody takes back, with what a reason is for.
var needReason = map[string]string{
	rollout.Abort:   "hosts go back to what they ran before",
	rollout.Skip:    "a wave counts as passed that did not pass",
	rollout.Advance: "it is your yes that the policy asks for",
}

// Verb is POST /rollouts/{channel}/{verb}.
func (h *Handlers) Verb(verb string) func(c *call.Call, name string) error {
	return func(c *call.Call, name string) error {
		var v rollouts.Verb
		if err := read(c, &v); err != nil {
			return err
		}
		what := needReason[verb]
		switch v.Reason = strings.TrimSpace(v.Reason); {
		case v.Seq < 1 || v.Seq > signing.MaxSeq:
			return api.Errorf(api.BadRequest, `say which roll-out is meant: {"seq": N}, as narwharf rollout show %s has it`, name)
		case what != "" && v.Reason == "":
			return api.Errorf(api.BadRequest, "%s needs a reason, since %s: narwharf rollout %[1]s %[3]s --reason …", verb, what, name)
		case v.Host != "" && verb != rollout.Retry:
			return api.Errorf(api.BadRequest, "%s is about the whole roll-out: a host alone can retry, or be held (narwharf host hold %s)", verb, v.Host)
		}
		rev, err := revision(c.Req.Header.Get("If-Match"))
		if err != nil {
			return err
		}
		err = h.Driver.Verb(c.Ctx(), rollout.Verb{Channel: name, Seq: v.Seq, Rev: rev, Verb: verb, Host: v.Host, By: c.Who.Name, Reason: v.Reason})
		if err != nil {
			return err
		}
		s, err := h.Driver.Show(name, v.Seq)
		return c.JSON(http.StatusOK, s, err)
	}
}

// revision is the one that If-Match names, 0 for any.
func revision(match string) (int64, error) {
	if match == "" || match == "*" {
		return 0, nil
	}
	rev, err := strconv.ParseInt(strings.Trim(match, `"`), 10, 64)
	if err != nil || rev < 1 {
		return 0, api.Errorf(api.BadRequest, `If-Match %s is not the "rev" of a roll-out in quotes`, match)
	}
	return rev, nil
}

// read reads a body strictly: a key that is misspelt would be a rule that nobody keeps.
func read(c *call.Call, value any) error {
	var raw json.RawMessage
	if err := c.ReadJSON(maxBody, &raw); err != nil {
		return err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(raw, &keys); err != nil || len(keys) == 0 {
		return api.Errorf(api.BadRequest, "the body is not the JSON that belongs here: it is empty, or no object")
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(value); err != nil {
		return api.Errorf(api.BadRequest, "the body is not the JSON that belongs here: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// ends refuses an end that is over.
func (h *Handlers) ends(until time.Time) error {
	if !until.IsZero() && !until.After(h.Clock()) {
		return api.Errorf(api.BadRequest, "until %s is over already", until.UTC().Format(time.RFC3339))
	}
	return nil
}

func notThere(what, name string) error {
	return api.Errorf(api.NotFound, "there is no %s %s: narwharf %[1]s list shows those that there are", what, name)
}
