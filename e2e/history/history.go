// Package history is what clients of several servers saw, written down while faults strike, and
// whether one server without faults could have told them the same.
//
// # What it checks
//
//   - Promotes of a channel are linearisable: each can be given a moment between its call and its
//     answer at which it took place, so that each sees all before it. A promote takes place if the
//     channel is at the release that its If-Match names. A reading is what the channel was at some
//     moment up to Rules.Lag before its call, while a fault lasts also before that: servers hear of
//     each other's changes within that time, and one that is cut off shows what it knows.
//   - An upload that was answered, or a path that was served, is served from then on.
//   - A host's report that was answered, or a later one, is what a server says of it as late as that; no
//     server goes back.
//   - No host is granted a release twice, and no more hosts at once than the policy allows.
//   - No host goes back, and each hears of the last release in time.
//
// An operation without an answer is Unknown: it took place at any time after its call, or never.
//
// The check of releases is Wing and Gong's search with the memory of Lowe: it tries the operations
// that could come next, and never the same set in the same state twice.
package history

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Kind is what a client did.
type Kind string

// The kinds. At is a seq, a counter, or nothing; ID tells two releases of one seq apart.
const (
	Promote Kind = "promote" // Key is a channel, From the seq of If-Match, At and ID the release
	Read    Kind = "read"    // Key is a channel, At and ID what it is at
	Upload  Kind = "upload"  // Key is a path
	Fetch   Kind = "fetch"   // Key is a path; Refused: it is not there
	Report  Kind = "report"  // Key is a host, At its counter
	Status  Kind = "status"  // Key is a host, At the counter that a server shows
	Seen    Kind = "seen"    // Key is a channel, Client a host, At the seq that it is told of
	Grant   Kind = "grant"   // Key is a channel, Client a host, At the seq, ID the grant
	Done    Kind = "done"    // Key is a channel, Client a host, At the seq that it reports the end of
)

// Outcome is what became of an operation.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Refused Outcome = "refused" // it surely did not take place
	Unknown Outcome = "unknown"
)

// An Op is one operation. Times are since the beginning of the history.
type Op struct {
	Kind      Kind
	Client    string
	Key       string
	From, At  int64
	ID        string
	Call, End time.Duration
	Outcome   Outcome
}

func (o Op) String() string {
	return fmt.Sprintf("%s %s by %s, from %d at %d %s, %v to %v: %s", o.Kind, o.Key, o.Client, o.From, o.At, o.ID,
		o.Call.Round(time.Millisecond), o.End.Round(time.Millisecond), o.Outcome)
}

// Log is where clients write down what they do, from many goroutines.
type Log struct {
	begun time.Time
	mu    sync.Mutex
	ops   []Op
}

// NewLog begins a history.
func NewLog() *Log { return &Log{begun: time.Now()} }

// Now is how old the history is.
func (l *Log) Now() time.Duration { return time.Since(l.begun) }

// Add writes an operation down that has ended now.
func (l *Log) Add(o Op) {
	o.End = l.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, o)
}

// Ops are the operations so far, in the order of their calls.
func (l *Log) Ops() []Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Clone(l.ops)
	slices.SortStableFunc(all, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	return all
}

// Count is how many operations of a kind had an outcome.
func Count(ops []Op, kind Kind, outcome Outcome) (n int) {
	for _, o := range ops {
		if o.Kind == kind && o.Outcome == outcome {
			n++
		}
	}
	return n
}

// Rules are what a history is held against.
type Rules struct {
	// AtOnce is how many hosts of a channel may be granted something at a time; 0: any number.
	AtOnce map[string]int
	// Hosts are who follows a channel. Each has to hear of its last release.
	Hosts map[string][]string
	// Within is how long that may take after the promote, or after the faults were over.
	Within time.Duration
	// Lag is how old what a server shows may be.
	Lag time.Duration
	// Struck and Healed are when faults began, and when they were over.
	Struck, Healed time.Duration
}

// oldest is from when on what a server showed may be that was asked at a time.
func (r Rules) oldest(asked time.Duration) time.Duration {
	if asked >= r.Struck && asked <= r.Healed+r.Lag {
		asked = r.Struck
	}
	return asked - r.Lag
}

// Check returns what is wrong with a history, nothing if all is well.
func Check(ops []Op, r Rules) (wrong []string) {
	wrong = slices.Concat(releases(ops, r), kept(ops), inOrder(ops, r), neverBack(ops))
	for channel, n := range r.AtOnce {
		wrong = append(wrong, granted(ops, channel, n)...)
	}
	for channel, hosts := range r.Hosts {
		wrong = append(wrong, heard(ops, channel, hosts, r)...)
	}
	slices.Sort(wrong)
	return wrong
}

// by sorts operations of some kinds by what key says.
func by(ops []Op, key func(Op) string, kinds ...Kind) map[string][]Op {
	all := map[string][]Op{}
	for _, o := range ops {
		if slices.Contains(kinds, o.Kind) {
			all[key(o)] = append(all[key(o)], o)
		}
	}
	return all
}

func ofKey(o Op) string { return o.Key }

// kept wants paths that were answered for, or served, to be served.
func kept(ops []Op) (wrong []string) {
	for _, of := range by(ops, ofKey, Upload, Fetch) {
		var there *Op
		for i := range of {
			if o := &of[i]; o.Outcome == OK && (there == nil || o.End < there.End) {
				there = o
			}
		}
		for _, o := range of {
			if there != nil && o.Kind == Fetch && o.Outcome == Refused && o.Call > there.End {
				wrong = append(wrong, fmt.Sprintf("lost: %s, after %s", o, there))
			}
		}
	}
	return wrong
}

// inOrder wants the counter that is shown of a host to be that of the last report that was
// answered or of a later one, as late as servers hear of each other; and none to go back.
func inOrder(ops []Op, r Rules) (wrong []string) {
	for _, of := range by(ops, ofKey, Report, Status) {
		for _, o := range of {
			if o.Kind != Status || o.Outcome != OK {
				continue
			}
			if o.At > 0 && !slices.ContainsFunc(of, func(r Op) bool { return r.Kind == Report && r.At == o.At && r.Call <= o.End }) {
				wrong = append(wrong, fmt.Sprintf("out of nothing: %s, before any report of that number", o))
			}
			for _, before := range of {
				limit := r.oldest(o.Call)
				if before.Kind == Status && before.Client == o.Client {
					limit = o.Call
				}
				if before.Outcome == OK && before.End < limit && before.At > o.At {
					wrong = append(wrong, fmt.Sprintf("out of order: %s, after %s", o, before))
				}
			}
		}
	}
	return wrong
}

// neverBack wants what one host is told of a channel never to be older than before.
func neverBack(ops []Op) (wrong []string) {
	for _, of := range by(ops, func(o Op) string { return o.Key + " " + o.Client }, Seen) {
		for i := 1; i < len(of); i++ {
			if of[i].At < of[i-1].At {
				wrong = append(wrong, fmt.Sprintf("back: %s, after %s", of[i], of[i-1]))
			}
		}
	}
	return wrong
}

// granted wants each host to be granted a release once, and no more than n hosts at a time to be
// at work. A host is surely at work from when it has a grant to when it begins to say that it is done.
func granted(ops []Op, channel string, n int) (wrong []string) {
	type span struct{ from, to time.Duration }
	var spans []span
	for _, of := range by(ops, func(o Op) string { return fmt.Sprint(o.Client, " ", o.At) }, Grant, Done) {
		if of[0].Key != channel {
			continue
		}
		var at *span
		id := ""
		for _, o := range of {
			switch {
			case o.Kind == Done && at != nil:
				at.to = min(at.to, o.Call)
			case o.Kind == Grant && at == nil:
				at, id = &span{o.End, 1 << 62}, o.ID
			case o.Kind == Grant && o.ID != id:
				wrong = append(wrong, fmt.Sprintf("granted twice: %s, before as %s", o, id))
			}
		}
		if at != nil {
			spans = append(spans, *at)
		}
	}
	for _, s := range spans {
		at := 0
		for _, o := range spans {
			if o.from <= s.from && s.from < o.to {
				at++
			}
		}
		if n > 0 && at > n {
			wrong = append(wrong, fmt.Sprintf("%d hosts of %s had grants at %v, and %d may", at, channel, s.from.Round(time.Millisecond), n))
		}
	}
	return wrong
}

// heard wants each host to have heard of the last release in time.
func heard(ops []Op, channel string, hosts []string, r Rules) (wrong []string) {
	var last Op
	for _, o := range ops {
		if o.Kind == Promote && o.Key == channel && o.Outcome == OK && o.At > last.At {
			last = o
		}
	}
	limit := max(last.End, r.Healed) + r.Within
	for _, host := range hosts {
		if !slices.ContainsFunc(ops, func(o Op) bool {
			return o.Kind == Seen && o.Key == channel && o.Client == host && o.At >= last.At && o.End <= limit
		}) {
			wrong = append(wrong, fmt.Sprintf("%s has not heard within %v of %s", host, r.Within, last))
		}
	}
	return wrong
}

// Wait is how long a host of a channel waited at most until it was told of a release, or of a later one.
func Wait(ops []Op, channel string) (longest time.Duration) {
	var promotes []Op
	for _, o := range ops {
		if o.Kind == Promote && o.Key == channel && o.Outcome == OK {
			promotes = append(promotes, o)
		}
	}
	for _, seen := range by(ops, func(o Op) string { return o.Key + " " + o.Client }, Seen) {
		if seen[0].Key != channel {
			continue
		}
		for _, p := range promotes {
			if i := slices.IndexFunc(seen, func(o Op) bool { return o.At >= p.At }); i >= 0 {
				longest = max(longest, seen[i].End-p.End)
			}
		}
	}
	return longest
}
