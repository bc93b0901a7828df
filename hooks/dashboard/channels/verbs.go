package channels

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"narwharf/hooks/api"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/rights"
	"narwharf/hooks/rollout"
	"narwharf/signing/access/scope"
)

// verb is one of the things that people say to a roll-out.
type verb struct {
	name, word string
	text       string // what happens
	danger     bool
	reason     frame.Reasons
	exact      bool // it is about what was seen, and nothing newer
}

var all = []verb{
	{rollout.Advance, "Approve", "This is the yes that the policy asks for: the next wave opens.", false, frame.MustReason, true},
	{rollout.Pause, "Pause", "Nobody new begins with it. Hosts that are on their way go on to their end. Resume lets it go on.", false, frame.MayReason, false},
	{rollout.Resume, "Resume", "It goes on where it stopped, without the hosts that ended badly.", false, frame.MayReason, false},
	{rollout.Retry, "Retry", "Hosts that ended badly try the same release again.", false, frame.MayReason, false},
	{rollout.Skip, "Skip the wave", "The wave that is open counts as passed, and the next one opens.", true, frame.MustReason, true},
	{rollout.Abort, "Abort", "Nobody new begins, and hosts that run the release go back to what they had confirmed before it.", true, frame.MustReason, false},
}

// fits are the verbs that do something in a state.
func fits(s *rollout.Summary, name string) bool {
	approval, open := false, false
	for i := range s.Waves {
		approval = approval || s.Waves[i].State == rollout.WaveApproval
		open = open || s.Waves[i].State == rollout.WaveOpen || s.Waves[i].State == rollout.WaveBaking
	}
	switch name {
	case rollout.Pause:
		return s.State == rollout.Running || s.State == rollout.Planned
	case rollout.Resume:
		return s.State == rollout.Paused || s.State == rollout.Halted
	case rollout.Advance:
		return s.State == rollout.Running && approval
	case rollout.Skip:
		return s.State == rollout.Running && open
	case rollout.Retry:
		return s.Bad > 0 && s.State != rollout.Aborting && !(s.State.Over() && s.State != rollout.Completed)
	case rollout.Abort:
		return !s.State.Over() && s.State != rollout.Aborting
	}
	return false
}

// button is a link to an action.
type button struct {
	Word, Link string
	Danger     bool
}

func (v *verb) path(channel string) string { return "/ui/channels/" + channel + "/" + v.name }

func buttons(r *frame.Request, s *rollout.Summary) (list []button) {
	if !s.Present || !r.Can(scope.Operate, s.Channel) {
		return nil
	}
	for i := range all {
		if v := &all[i]; fits(s, v.name) {
			list = append(list, button{v.word + "…", fmt.Sprintf("%s?seq=%d&rev=%d", v.path(url.PathEscape(s.Channel)), s.Seq, s.Rev), v.danger})
		}
	}
	return list
}

func verbs() (list []frame.Action) {
	for i := range all {
		v := &all[i]
		list = append(list, frame.Action{Path: v.path("{channel}"), Needs: rights.Operates(scope.InPath), Ask: v.ask, Do: v.do})
	}
	return list
}

// ask shows the roll-out as it is now.
func (v *verb) ask(r *frame.Request) (*frame.Question, error) {
	name := r.Param("channel")
	var s rollout.Summary
	if err := r.Get("/api/v1/rollouts/"+url.PathEscape(name), &s); err != nil {
		return nil, err
	}
	text, _ := gate(&s)
	q := &frame.Question{
		Title: fmt.Sprintf("%s: release %d of %s", v.word, s.Seq, name), Text: v.text, Button: v.word, Danger: v.danger, Reason: v.reason,
		Lines: []string{text, fmt.Sprintf("%d of %d hosts run it, %d are on their way, %d ended badly, %d are offline", s.Well, s.Total, s.InFlight, s.Bad, s.Offline)},
		Keep:  map[string]string{"seq": strconv.FormatInt(s.Seq, 10), "rev": strconv.FormatInt(s.Rev, 10)},
		Back:  "/ui/channels/" + url.PathEscape(name),
	}
	switch seen := r.Query.Get("seq"); {
	case seen != "" && seen != q.Keep["seq"]:
		q.Stale = fmt.Sprintf("The page that you came from showed release %s. The roll-out of %s is release %d by now: look at it first.", seen, name, s.Seq)
	case !fits(&s, v.name):
		q.Stale = fmt.Sprintf("Release %d of %s is %s by now: there is nothing to %s.", s.Seq, name, s.State, v.name)
	}
	return q, nil
}

func (v *verb) do(r *frame.Request, a *frame.Answer) (string, error) {
	name := url.PathEscape(r.Param("channel"))
	seq, err := strconv.ParseInt(a.Form.Get("seq"), 10, 64)
	if err != nil {
		return "", api.Errorf(api.BadRequest, "The form does not say which release it is about: load the page again.")
	}
	header := make(http.Header)
	if v.exact {
		header.Set("If-Match", strconv.Quote(a.Form.Get("rev")))
	}
	_, err = r.Call(http.MethodPost, "/api/v1/rollouts/"+name+"/"+v.name, header, rollouts.Verb{Seq: seq, Reason: a.Reason}, nil)
	return "/ui/channels/" + name, err
}
