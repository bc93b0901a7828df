package notify

import (
	"encoding/json"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
)

// The formats of bodies.
const (
	JSON  = "json"
	Slack = "slack" // {"text":"…"}, which Mattermost and Rocket.Chat take, too
)

// Body is what JSON sends.
type Body struct {
	Type      string     `json:"type"` // the kind of the event
	Timestamp time.Time  `json:"timestamp"`
	Server    string     `json:"server,omitempty"` // public_url
	Data      *api.Event `json:"data"`             // as GET /api/v1/events has it
}

// maxText bounds what a person reads in one message, in bytes.
const maxText = 3000

// body is what a target is sent of an event.
func body(format, server string, e *api.Event) []byte {
	var v any = Body{Type: e.Kind, Timestamp: e.Time, Server: server, Data: e}
	if format == Slack {
		v = map[string]string{"text": slackText(server, e)}
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers
	}
	return text
}

// slackText is an event for people. What a host or a person wrote is no line of its own, hides no address behind a
// word and calls nobody: not in Slack's form, and not in Markdown, which Mattermost and Rocket.Chat read.
func slackText(server string, e *api.Event) string {
	head := "*" + e.Kind + "*"
	switch {
	case e.Alarm:
		head = ":rotating_light: *ALARM " + e.Kind + "*"
	case e.Kind == "alarm.closed":
		head = ":white_check_mark: " + head
	}
	if e.Channel != "" {
		head += " " + e.Channel
	}
	if e.Host != "" {
		head += " " + e.Host
	}
	text := head + "\n" + clip.Line(e.Text, maxText)
	if e.By != "" {
		text += "\nby " + clip.Line(e.By, maxText)
	}
	const apart = "\u200b" // nobody sees it
	text = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@"+apart, "](", "]"+apart+"(", "][", "]"+apart+"[", "]:", "]"+apart+":").Replace(text)
	if server != "" {
		text += "\n<" + strings.TrimSuffix(server, "/") + "/ui>"
	}
	return text
}
