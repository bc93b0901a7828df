package alarm

import (
	"cmp"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/narinfo/clip"
)

// subjects are what alarms of a kind are about. Of all others it is the host, else the channel, else
// the server.
var subjects = map[string]func(e *api.Event) string{
	"access.issuer":  data("issuer"),
	"cache.damaged":  func(e *api.Event) string { return strings.TrimSpace(e.Data["file"] + " " + e.Channel) },
	"channel.behind": func(e *api.Event) string { return e.Channel },
	"notify.failing": data("target"),
}

func data(key string) func(e *api.Event) string {
	return func(e *api.Event) string { return e.Data[key] }
}

// subject is what an event says something about, for alarms of a kind.
func subject(kind string, e *api.Event) string {
	if of := subjects[kind]; of != nil {
		return clip.Line(of(e), 500)
	}
	return clip.Line(cmp.Or(e.Host, e.Channel), 500)
}

func key(kind, subject string) string { return kind + "/" + subject }

// An ending is that events of one kind end alarms of another about the same.
type ending struct {
	alarm string
	when  func(a *alarm.Alarm, e *api.Event) bool // nil: always
}

// endings are those by the kind of the event that ends. Beside them an event that is no alarm ends
// the alarms of its own kind, but for those in lasting; host.removed ends all of the host,
// channel.deleted all of the channel that are of no host, quarantine.cleared those about its path.
var endings = map[string][]ending{
	"host.state":       {{"host.state", settled}, {"reboot.unused", rebooted}},
	"host.approved":    {{"host.identity", nil}, {"host.cloned", nil}},
	"host.withdrawn":   {{"host.identity", nil}},
	"reboot.ended":     {{"reboot.late", nil}},
	"channel.promoted": {{"channel.behind", caughtUp}, {"channel.lost", nil}}, // complete, or it would not have been taken
	"channel.restored": {{"channel.behind", caughtUp}},

	"rollout.running":    {{"rollout.halted", nil}},
	"rollout.aborting":   {{"rollout.halted", nil}},
	"rollout.aborted":    {{"rollout.halted", nil}},
	"rollout.superseded": {{"rollout.halted", nil}},
	"rollout.completed":  {{"rollout.halted", nil}, {"rollout.quarantined", nil}}, // nobody is given the bad system any more
}

// lasting are kinds whose other events say nothing of the alarm.
var lasting = map[string]bool{"host.state": true, "channel.keys": true}

// settled is a host that came to an end which is no alarm. One under way may fail again.
func settled(_ *alarm.Alarm, e *api.Event) bool {
	return !e.Alarm && api.State(e.Data["state"]).Final()
}

// rebooted is a host that is not armed any more.
func rebooted(a *alarm.Alarm, e *api.Event) bool {
	return settled(a, e) && api.State(e.Data["state"]) != api.Armed
}

// caughtUp is a channel that knows the release that a host has shown.
func caughtUp(a *alarm.Alarm, e *api.Event) bool { return e.Seq >= a.Seq }

// ends tells whether an event ends an alarm that is open.
func ends(a *alarm.Alarm, e *api.Event) bool {
	switch {
	case e.ID <= a.ID:
		return false
	case e.Kind == "host.removed":
		return e.Host != "" && a.Host == e.Host
	case e.Kind == "channel.deleted":
		return a.Channel == e.Channel && a.Host == ""
	case e.Kind == "quarantine.cleared":
		return a.Kind == "rollout.quarantined" && e.Data["path"] != "" && strings.Contains(a.Text, e.Data["path"]+" ")
	case e.Kind == a.Kind && subject(a.Kind, e) == a.Subject && !e.Alarm && !lasting[a.Kind]:
		return true
	}
	for _, x := range endings[e.Kind] {
		if x.alarm == a.Kind && subject(a.Kind, e) == a.Subject {
			return x.when == nil || x.when(a, e)
		}
	}
	return false
}

// candidates are the keys of alarms that an event may end; all is that it may be any: such events are rare.
func candidates(e *api.Event) (keys []string, all bool) {
	switch e.Kind {
	case "host.removed", "channel.deleted", "quarantine.cleared":
		return nil, true
	}
	if !e.Alarm && !lasting[e.Kind] {
		keys = append(keys, key(e.Kind, subject(e.Kind, e)))
	}
	for _, x := range endings[e.Kind] {
		keys = append(keys, key(x.alarm, subject(x.alarm, e)))
	}
	return keys, false
}
