// Package doctor says what is wrong with a server, a host or a client, and what to type about it.
//
// A look at one thing is a [Finding]. What is well is one, too, so that a person sees what was looked at. A doctor
// changes nothing. Package remote asks a cache over HTTP what a client would meet; package client
// holds this machine's Nix beside it; package host looks at an agent, package server at a data_dir.
package doctor

import "fmt"

// A Level is how bad it is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Note    Level = "note"    // it was not looked at, or is worth to know
	Warning Level = "warning" // it will go wrong some day, or is slow
	Fault   Level = "fault"   // it does not work
)

// A Finding is what a look at one thing came to.
type Finding struct {
	Check string   `json:"check"` // one word or two with a hyphen, for scripts
	Level Level    `json:"level"`
	Text  string   `json:"text"`
	Type  []string `json:"type,omitempty"` // lines to type, or to write into a file that the text names
}

// A Report is what all looks came to, in their order.
type Report struct {
	Findings []Finding `json:"findings"`
}

// Add adds a finding.
func (r *Report) Add(level Level, check string, fix []string, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{Check: check, Level: level, Text: fmt.Sprintf(format, args...), Type: fix})
}

// OK adds that something is well.
func (r *Report) OK(check, format string, args ...any) { r.Add(OK, check, nil, format, args...) }

// Note adds something that is worth to know.
func (r *Report) Note(check, format string, args ...any) { r.Add(Note, check, nil, format, args...) }

// Warn adds what will go wrong some day.
func (r *Report) Warn(check string, fix []string, format string, args ...any) {
	r.Add(Warning, check, fix, format, args...)
}

// Fault adds what does not work.
func (r *Report) Fault(check string, fix []string, format string, args ...any) {
	r.Add(Fault, check, fix, format, args...)
}

// Faults is how many things do not work.
func (r *Report) Faults() (n int) {
	for _, f := range r.Findings {
		if f.Level == Fault {
			n++
		}
	}
	return n
}

// Find is the finding of a check, nil if there is none.
func (r *Report) Find(check string) *Finding {
	for i := range r.Findings {
		if r.Findings[i].Check == check {
			return &r.Findings[i]
		}
	}
	return nil
}
