package api

import "time"

// Event is a line of the audit log.
type Event struct {
	ID      int64             `json:"id"`
	Time    time.Time         `json:"time"`
	Kind    string            `json:"kind"` // "channel.promoted", "host.state", …
	By      string            `json:"by,omitempty"`
	Channel string            `json:"channel,omitempty"`
	Host    string            `json:"host,omitempty"`
	Seq     int64             `json:"seq,omitempty"`
	Text    string            `json:"text"` // a sentence for people
	Alarm   bool              `json:"alarm,omitempty"`
	Data    map[string]string `json:"data,omitempty"`
	// Actor is whose request did it, and Request the id in that one's answer. Neither is there
	// with what a server did by itself, and in lines of older servers.
	Actor   *Actor `json:"actor,omitempty"`
	Request string `json:"request,omitempty"`
}

// Actor is who made a request. Nothing in it is secret.
type Actor struct {
	// Credential is what kind it was: "token", "none", "oidc", "ssh", "aws", "certificate",
	// "session"; "user" is one of the server's machine.
	Credential string `json:"credential"`
	Name       string `json:"name,omitempty"`    // of the token, the rule ("github/main"), the user
	Token      string `json:"token,omitempty"`   // its id, which is public
	Subject    string `json:"subject,omitempty"` // in the issuer's words
	Address    string `json:"address,omitempty"`
}
