package notify

import (
	"net/url"
	"path"

	"narwharf/hooks/api"
)

// Target is one of [[notify]].
type Target struct {
	Name     string
	URL      *url.URL
	Format   string   // JSON or Slack
	Events   []string // globs of kinds
	Alarms   bool     // events that are alarms, and what becomes of those
	Channels []string // globs; none: all, and what is of no channel
	Secrets  [][]byte
	Private  bool // private addresses, and http
}

// wants tells whether a target is to be sent an event. The globs are well-formed.
func (t *Target) wants(e *api.Event) bool {
	if len(t.Channels) > 0 && !fits(t.Channels, e.Channel) {
		return false
	}
	return t.Alarms && (e.Alarm || e.Kind == "alarm.taken" || e.Kind == "alarm.closed") || fits(t.Events, e.Kind)
}

func fits(globs []string, name string) bool {
	for _, glob := range globs {
		if ok, err := path.Match(glob, name); ok && err == nil {
			return true
		}
	}
	return false
}

// to is a target's URL for people: what comes after the host may be a secret.
func (t *Target) to() string { return t.URL.Scheme + "://" + t.URL.Host }
