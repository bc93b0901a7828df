package api

import (
	"fmt"
	"time"
)

// Text is the reason in one line for people.
func (w *Waiting) Text() string {
	if w.Detail == "" {
		return "waits: " + string(w.Kind)
	}
	return fmt.Sprintf("waits: %s (%s)", w.Kind, w.Detail)
}

// TimeText is a time for people, in their time zone. What a database that was
// lost had is unknown.
func TimeText(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.Local().Format(time.DateTime)
}
