// Package journal is what an agent knows across its own restarts and the
// host's, and the text of it on disk.
//
// # Format
//
// journal.json in the state directory is one JSON object with a version. It is
// replaced whole. What stands in it may be under way: it is saved before an
// effect is begun and after it has ended.
//
// Hosts in the field keep their journals. So a field keeps its JSON name and its
// place for ever, and agents of all ages read what another one wrote: an older
// one either finds a phase from which it goes on rightly, or a version that it
// does not touch (phase.go). testdata has journals as the delivery of
// 2026-11-21 wrote them.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// Version is of the journal's format. An agent that meets a newer one touches
// nothing. What older agents understand is written as version 1.
const Version = 2

// A Journal is all that an agent knows.
type Journal struct {
	Version int   `json:"version"`
	StartID int64 `json:"start_id"` // of the agent's last start; see api.Status

	// Seen is what was accepted, by origin and channel. It never shrinks.
	Seen map[string]Seen `json:"seen"`
	// Keys are what has led to the keys that count now, by origin and channel.
	Keys map[string]*Keys `json:"keys,omitempty"`
	// Denied are entries that failed here, by digest. The same bytes under a
	// higher seq stay denied until somebody says retry.
	Denied map[string]Denial `json:"denied,omitempty"`
	// Directive is the ID of the last directive that was obeyed.
	Directive string `json:"directive,omitempty"`

	// Desired is the server's last answer and ETag its tag: the tag is sent
	// only with the answer it belongs to at hand.
	Desired *api.Desired `json:"desired,omitempty"`
	ETag    string       `json:"etag,omitempty"`
	// When that answer came, on that boot's clock: a grant's lease counts
	// from here.
	DesiredAt   int64  `json:"desired_at_ms,omitempty"`
	DesiredBoot string `json:"desired_boot_id,omitempty"`
	// LetGo is the ID of the last grant that an answer had and the next one had not.
	LetGo string `json:"let_go,omitempty"`

	Confirmed       string `json:"confirmed,omitempty"` // store path that was last committed
	ConfirmedBefore string `json:"confirmed_before,omitempty"`
	ConfirmedRoot   string `json:"confirmed_root,omitempty"` // what the root "confirmed" protects

	// Unsynced are paths that were brought in on the boot UnsyncedBoot, and
	// are not known to be on the disk. When a boot comes in between they are
	// Suspect: valid, says Nix, and perhaps without their bytes.
	Unsynced     []narinfo.Path `json:"unsynced,omitempty"`
	UnsyncedBoot string         `json:"unsynced_boot_id,omitempty"`
	Suspect      []narinfo.Path `json:"suspect,omitempty"`

	// Refusal is why the last polls came to nothing: what the server said if it
	// refused them, or why it was not reached.
	Refusal string `json:"refusal,omitempty"`

	State      api.State    `json:"state"`
	Seq        int64        `json:"seq"` // that State is about
	WaitingFor *api.Waiting `json:"waiting_for,omitempty"`
	Error      string       `json:"error,omitempty"`
	Alarm      string       `json:"alarm,omitempty"` // an Error that may be an attack

	Attempt *Attempt `json:"attempt,omitempty"`
}

// Seen is the highest release that was accepted of a channel.
type Seen struct {
	Seq     int64            `json:"seq"`
	Pointer *signing.Pointer `json:"pointer"`
	// Directive is the highest serial of a directive about Seq that was obeyed.
	// It goes with Seq, so that whatever number a server once said, it can ask
	// again about the next release.
	Directive int64 `json:"directive_serial,omitempty"`
	Retries   int   `json:"retries,omitempty"` // of Seq that directives asked for
}

// Keys are statements and revocations of a channel's keys that were accepted (signing/keyring).
// An agent that knows nothing of them forgets them; the next is shown them anew.
type Keys struct {
	Statements  []*signing.Envelope `json:"statements,omitempty"`
	Revocations []*signing.Envelope `json:"revocations,omitempty"`
}

// KeepKeys notes what has led to the keys that count now.
func (j *Journal) KeepKeys(channel string, k *Keys) {
	if k != nil {
		j.Keys = maps.Clone(j.Keys)
		if j.Keys == nil {
			j.Keys = make(map[string]*Keys)
		}
		j.Keys[channel] = k
	}
}

// Denial is why an entry is not tried again.
type Denial struct {
	Seq    int64  `json:"seq"`
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// ErrNewer is that a newer agent wrote the journal.
var ErrNewer = errors.New("a newer narwharf wrote the journal")

// Parse reads a journal's text; nil is a host that has none yet.
func Parse(text []byte) (*Journal, error) {
	j := &Journal{Version: Version, State: api.Idle}
	if text != nil {
		var v struct {
			Version int `json:"version"`
		}
		if err := json.Unmarshal(text, &v); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if v.Version > Version {
			return nil, fmt.Errorf("%w: version %d, this one knows %d; run that agent, or move the journal away and give min_seq", ErrNewer, v.Version, Version)
		}
		if err := json.Unmarshal(text, j); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	if a := j.Attempt; a != nil {
		a.restoreExact()
		if !slices.Contains(Phases, a.Phase) {
			return nil, fmt.Errorf("%w: it is in the phase %q, which this one does not know; run that agent until it is at rest, or move the journal away and give min_seq", ErrNewer, a.Phase)
		}
	}
	if j.Seen == nil {
		j.Seen = make(map[string]Seen)
	}
	if j.Denied == nil {
		j.Denied = make(map[string]Denial)
	}
	return j, nil
}

// Text is the journal as it is written.
func (j *Journal) Text() []byte {
	text, err := json.Marshal(j.forEarlier())
	if err != nil {
		panic(err) // no value of a Journal does that
	}
	return append(text, '\n')
}

// Clone is a copy that shares nothing which a step changes.
func (j *Journal) Clone() *Journal {
	c := *j
	c.Seen, c.Denied = maps.Clone(j.Seen), maps.Clone(j.Denied)
	c.Unsynced, c.Suspect = slices.Clone(j.Unsynced), slices.Clone(j.Suspect)
	if j.Attempt == nil {
		return &c
	}
	a := *j.Attempt
	a.Imported, a.Differs, a.Baseline, a.RebootFor = slices.Clone(a.Imported), slices.Clone(a.Differs), slices.Clone(a.Baseline), slices.Clone(a.RebootFor)
	a.NewFailed, a.Checks, a.Transitions, a.Runs = slices.Clone(a.NewFailed), slices.Clone(a.Checks), slices.Clone(a.Transitions), slices.Clone(a.Runs)
	a.Failing, a.Crashes, a.Durations = maps.Clone(a.Failing), maps.Clone(a.Crashes), maps.Clone(a.Durations)
	c.Attempt = &a
	return &c
}

// AtRest tells whether nothing is going to happen until the server or a person
// says something new.
func (j *Journal) AtRest() bool {
	return j.State != "" && (j.Attempt == nil || j.Attempt.Phase == Done)
}

// Confirm notes that the host is well on path.
func (j *Journal) Confirm(path string) {
	if j.Confirmed != path {
		j.ConfirmedBefore, j.Confirmed = j.Confirmed, path
	}
}

// Deny notes that the attempt's entry is not tried again.
func (j *Journal) Deny() {
	a := j.Attempt
	j.Denied[a.Entry] = Denial{Seq: a.Seq, Path: a.Path, Reason: a.Reason}
}

// Hear notes the server's answer to a poll, nil if there was nothing new.
func (j *Journal) Hear(d *api.Desired, etag string, now int64, bootID string) {
	if d == nil {
		return
	}
	was, is := grant(j.Desired), grant(d)
	switch {
	case was != "" && is != was:
		j.LetGo = was
	case is == j.LetGo:
		j.LetGo = ""
	}
	j.Desired, j.ETag, j.DesiredAt, j.DesiredBoot = d, etag, now, bootID
}

// HasLetGo is the ID of the grant that a host let go which has not begun, "" for none. Later the
// grant was used.
func (j *Journal) HasLetGo() string {
	if !j.State.Before() {
		return ""
	}
	return j.LetGo
}

// grant is the ID of an answer's grant, "" if it has none.
func grant(d *api.Desired) string {
	if d == nil || d.Grant == nil {
		return ""
	}
	return d.Grant.ID
}

// Obey notes that a directive about the channel's release was obeyed.
func (j *Journal) Obey(channel string, d *api.Directive) {
	j.Directive = d.ID
	if seen := j.Seen[channel]; d.Serial > seen.Directive {
		seen.Directive = d.Serial
		j.Seen[channel] = seen
	}
}

// A File is journal.json in a state directory. After a crash it has the text
// that was saved last or the one before it, whole.
type File struct{ StateDir string }

func (f File) name() string { return filepath.Join(f.StateDir, "journal.json") }

// Load returns nil text if there is none yet.
func (f File) Load() ([]byte, error) {
	text, err := os.ReadFile(f.name())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// Save is durable when it returns.
func (f File) Save(text []byte) error {
	if err := durable.WriteFile(f.name(), text, 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Read reads the journal in a state directory, for people who ask.
func Read(stateDir string) (*Journal, error) {
	text, err := File{stateDir}.Load()
	if err != nil {
		return nil, err
	}
	return Parse(text)
}
