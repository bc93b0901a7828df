package nixos

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// JournalVersion is of the journal's format. An agent that meets a newer one
// touches nothing. What older agents understand is written as version 1.
const JournalVersion = 2

// A Journal is all that an agent knows across its own restarts and the host's.
// It is saved before an effect is begun and after it ended, so what stands in
// it is what may be under way.
type Journal struct {
	Version int   `json:"version"`
	StartID int64 `json:"start_id"` // of the agent's last start; see api.Status

	// Seen is what was accepted, by origin and channel. It never shrinks.
	Seen map[string]Seen `json:"seen"`
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
}

// Denial is why an entry is not tried again.
type Denial struct {
	Seq    int64  `json:"seq"`
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// An Attempt is the carrying out of one entry. Times are milliseconds on the
// boot's clock, so they mean something together with BootID alone.
type Attempt struct {
	ID     string         `json:"id"`
	Nonce  string         `json:"nonce"` // what the new system's agent confirms with
	Seq    int64          `json:"seq"`
	Entry  string         `json:"entry"` // sha256: of the entry's bytes
	Path   string         `json:"path"`
	Close  signing.Digest `json:"closure"`
	System string         `json:"system"`
	Action signing.Action `json:"action"`
	Expire int64          `json:"expires,omitempty"` // Unix seconds; 0: never

	Phase   Phase     `json:"phase"`
	Exact   Phase     `json:"exact_phase,omitempty"` // in the file alone; see nearest
	Outcome api.State `json:"outcome,omitempty"`     // with PhaseDone
	BootID  string    `json:"boot_id"`
	Began   int64     `json:"began_ms"`

	// Staging.
	Imported []narinfo.Path `json:"imported,omitempty"` // were not valid before it
	Tries    int            `json:"tries,omitempty"`
	RetryAt  int64          `json:"retry_at_ms,omitempty"`
	Staged   bool           `json:"staged,omitempty"`
	Asked    bool           `json:"asked,omitempty"` // the server, since it is staged, or armed
	Jittered bool           `json:"jittered,omitempty"`
	Differs  []string       `json:"differs,omitempty"`
	Fetched  int64          `json:"fetched_bytes,omitempty"`

	// Before activation.
	Previous  string   `json:"previous,omitempty"` // where a revert leads
	Baseline  []string `json:"baseline,omitempty"` // units that had failed already
	Reachable bool     `json:"reachable,omitempty"`
	RebootFor []string `json:"reboot_for,omitempty"`
	ByBoot    bool     `json:"by_boot,omitempty"` // no live switch: the next boot starts it

	Owed      bool `json:"owed,omitempty"` // hooks.post_switch, since something was drained
	HookTries int  `json:"hook_tries,omitempty"`
	PostTries int  `json:"post_tries,omitempty"`

	// Activation: Run counts the runs of switch-to-configuration, the current
	// one included.
	Run        int    `json:"run,omitempty"`
	RunAction  string `json:"run_action,omitempty"`
	Activated  bool   `json:"activated,omitempty"` // a live switch was begun, ever
	SwitchExit *int   `json:"switch_exit,omitempty"`

	// Probation.
	ProbationAt int64            `json:"probation_at_ms,omitempty"`
	Rebooted    bool             `json:"rebooted,omitempty"` // probation is of a fresh boot
	Boots       int              `json:"boots,omitempty"`
	Failing     map[string]int64 `json:"failing,omitempty"` // since when, by what fails
	NewFailed   []string         `json:"new_failed,omitempty"`
	Checks      []api.Check      `json:"checks,omitempty"`
	Answered    bool             `json:"answered,omitempty"` // one whole round of checks came back
	AwayAt      int64            `json:"away_at_ms,omitempty"`
	AwayFor     string           `json:"away_for,omitempty"`
	Confirm     string           `json:"confirm,omitempty"`
	ConfirmedBy string           `json:"confirmed_by,omitempty"`
	Unconfirmed bool             `json:"unconfirmed,omitempty"`

	// Commit and revert.
	ProfileLink    string `json:"profile_link,omitempty"` // the generation before, as "system-41-link"
	ProfilePath    string `json:"profile_path,omitempty"` // the system of that generation
	ProfileTouched bool   `json:"profile_touched,omitempty"`
	CommitAt       int64  `json:"commit_at_ms,omitempty"`
	Resumed        bool   `json:"resumed,omitempty"`   // the host was booted while it was committed
	BootLost       bool   `json:"boot_lost,omitempty"` // on the way back its boot entry could not be written
	Lost           int    `json:"lost,omitempty"`      // runs without a result, of those that may be repeated
	Reason         string `json:"reason,omitempty"`    // of the revert, or the failure
	Leaving        bool   `json:"leaving,omitempty"`   // it was well, and the server asked to leave it
	TestUntil      int64  `json:"test_until_ms,omitempty"`
	TestEnds       bool   `json:"test_ends,omitempty"` // its time is over: the way back is no failure

	After api.State `json:"after,omitempty"` // with PhasePost
	Note  string    `json:"note,omitempty"`  // what did not work, and does not change the outcome

	Durations   map[string]int64 `json:"durations_ms,omitempty"`
	Transitions []api.Transition `json:"transitions,omitempty"` // the last 256
	Forgotten   int              `json:"forgotten,omitempty"`   // how many there were before these
	Runs        []Run            `json:"runs,omitempty"`        // of switch-to-configuration, the last 8
	LogPosted   bool             `json:"log_posted,omitempty"`
}

// RunID names the current run of switch-to-configuration; it is unique for
// ever.
func (a *Attempt) RunID() string { return fmt.Sprintf("%s-%d-%s", a.ID, a.Run, a.RunAction) }

// Journals keep the journal. Save is durable when it returns, and after a
// crash the last saved text or the one before it is there, whole.
type Journals interface {
	// Load returns nil text if there is none yet.
	Load() ([]byte, error)
	Save(text []byte) error
}

// ErrNewerJournal is that a newer agent wrote the journal.
var ErrNewerJournal = errors.New("a newer narwharf wrote the journal")

func parseJournal(text []byte) (*Journal, error) {
	j := &Journal{Version: JournalVersion, State: api.Idle}
	if text != nil {
		var v struct {
			Version int `json:"version"`
		}
		if err := json.Unmarshal(text, &v); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if v.Version > JournalVersion {
			return nil, fmt.Errorf("%w: version %d, this one knows %d; run that agent, or move the journal away and give min_seq", ErrNewerJournal, v.Version, JournalVersion)
		}
		if err := json.Unmarshal(text, j); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	if a := j.Attempt; a != nil {
		a.exact()
	}
	if a := j.Attempt; a != nil && !slices.Contains(phases, a.Phase) {
		return nil, fmt.Errorf("%w: it is in the phase %q, which this one does not know; run that agent until it is at rest, or move the journal away and give min_seq", ErrNewerJournal, a.Phase)
	}
	if j.Seen == nil {
		j.Seen = make(map[string]Seen)
	}
	if j.Denied == nil {
		j.Denied = make(map[string]Denial)
	}
	return j, nil
}

func (j *Journal) text() []byte {
	text, err := json.Marshal(j.forEarlier())
	if err != nil {
		panic(err) // no value of a Journal does that
	}
	return append(text, '\n')
}

// clone is a copy that shares nothing which a Machine changes.
func (j *Journal) clone() *Journal {
	c := *j
	c.Seen, c.Denied = maps.Clone(j.Seen), maps.Clone(j.Denied)
	c.Unsynced, c.Suspect = slices.Clone(j.Unsynced), slices.Clone(j.Suspect)
	if j.Attempt == nil {
		return &c
	}
	a := *j.Attempt
	a.Imported, a.Differs, a.Baseline, a.RebootFor = slices.Clone(a.Imported), slices.Clone(a.Differs), slices.Clone(a.Baseline), slices.Clone(a.RebootFor)
	a.NewFailed, a.Checks, a.Transitions, a.Runs = slices.Clone(a.NewFailed), slices.Clone(a.Checks), slices.Clone(a.Transitions), slices.Clone(a.Runs)
	a.Failing, a.Durations = maps.Clone(a.Failing), maps.Clone(a.Durations)
	c.Attempt = &a
	return &c
}

// ReadJournal reads the journal in a state directory, for people who ask.
func ReadJournal(stateDir string) (*Journal, error) {
	text, err := JournalIn(stateDir).Load()
	if err != nil {
		return nil, err
	}
	return parseJournal(text)
}

// JournalIn is journal.json in a state directory.
func JournalIn(stateDir string) Journals { return journalFile{stateDir} }

type journalFile struct{ dir string }

func (f journalFile) name() string { return filepath.Join(f.dir, "journal.json") }

func (f journalFile) Load() ([]byte, error) {
	text, err := os.ReadFile(f.name())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

func (f journalFile) Save(text []byte) error {
	if err := WriteDurably(f.name(), text, 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// WriteDurably replaces a file: after a crash it has the old text or the new.
func WriteDurably(name string, text []byte, mode os.FileMode) (err error) {
	tmp := name + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp) //nolint:errcheck // the first error is the one to tell
		}
	}()
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err = os.Rename(tmp, name); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(name))
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
