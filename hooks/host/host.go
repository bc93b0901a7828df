// Package host is the hosts that follow channels: what each reported, which
// machine it is, when it was heard of, and what people said of it.
//
// # What it promises
//
//   - What a host reported is stored as it was said. Reports are ordered by
//     (start id, counter); a stale one is refused, and one that is said again
//     is taken and changes nothing.
//   - A host name belongs to the instance that reported by it first. Another that
//     uses the name is refused and is an alarm, until a person says which of them
//     it shall be (docs/design/012-host-identity.md).
//
// Whoever changes what is kept of a host holds the lock "host:<name>" of the
// state; of an instance, "instance:<instance>" as well.
//
// # Format
//
// In the state, as JSON but for logs:
//
//	hooks/host      <name>                Record
//	hooks/owner     <name>                Owner
//	hooks/instance  <instance>            sightings, at name/<host> where it is ""
//	hooks/log       <name> NUL <attempt>  text
package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host/presence"
	"narwharf/signing/access"
	"narwharf/signing/access/shortlived"
)

// Record is what was said by and about a host.
type Record struct {
	Status   *api.Status       `json:"status,omitempty"`
	Reported time.Time         `json:"reported,omitzero"`
	By       string            `json:"by,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Hold     *api.Hold         `json:"hold,omitempty"`
	// Directive is what an operator asked for last; it is of one seq.
	Directive *api.Directive `json:"directive,omitempty"`
	// Left is the attempt from which it went back because somebody asked.
	Left   string  `json:"left,omitempty"`
	Unused *Unused `json:"unused,omitempty"`
	// Credential is the id of the token that made the host, if it is not of one host.
	Credential string `json:"credential,omitempty"`
}

// Unused is that a host was let reboot for a release, was up all the time, and
// gave its slot back.
type Unused struct {
	Channel string    `json:"channel"`
	Seq     int64     `json:"seq"`
	Times   int       `json:"times"` // in a row
	At      time.Time `json:"at"`    // of the last
	Alarmed bool      `json:"told,omitempty"`
}

// Of tells whether it is about a release; nil is about none.
func (u *Unused) Of(channel string, seq int64) bool {
	return u != nil && u.Channel == channel && u.Seq == seq
}

// Held tells whether a hold is on, which may end by itself.
func (r *Record) Held(now time.Time) bool {
	return r.Hold != nil && (r.Hold.Until == nil || r.Hold.Until.After(now))
}

// UnusedNow is what a host has not used of the release that it is about.
func (r *Record) UnusedNow() *Unused {
	if r.Status != nil && r.Unused.Of(r.Status.Channel, r.Status.Seq) {
		return r.Unused
	}
	return nil
}

// groupLabel is the label by which hosts share reboot slots.
const groupLabel = "reboot_group"

// RebootGroup is with whom a host of a channel shares reboot slots.
func (r *Record) RebootGroup(channel string) string {
	if g := r.Labels[groupLabel]; g != "" {
		return g
	}
	return channel
}

// stored is a Record that is decoded when it is asked for: most of a server's start
// would be spent on that.
type stored struct{ *lazy }

type lazy struct {
	text []byte

	once    sync.Once
	decoded *Record
	err     error
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *stored) UnmarshalJSON(text []byte) error {
	if !json.Valid(text) {
		return errors.New("it is not JSON")
	}
	s.lazy = &lazy{text: bytes.Clone(text)}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (s *stored) MarshalJSON() ([]byte, error) { return json.Marshal(s.decoded) }

// record is nil of nil.
func (s *stored) record() (*Record, error) {
	if s == nil {
		return nil, nil
	}
	s.once.Do(func() {
		if s.text != nil {
			s.decoded = new(Record)
			if s.err = json.Unmarshal(s.text, s.decoded); s.err != nil {
				s.decoded = nil
			}
			s.text = nil
		}
	})
	return s.decoded, s.err
}

// Caller is who makes a request.
type Caller struct {
	Name    string // of the credential
	TokenID string
	Host    string // whose token it is; "" if it is bound to none
	Owner   string // access.Grant.Owner of the credential
	Address string // from which it comes

	// May says why it may not act on the hosts of a channel; nil if it may. A host may follow
	// another channel by the time of the change than when the request came.
	May func(channel string) error
}

// Over says in a transaction why the caller may not act on a host of which r is known.
func (who Caller) Over(r *Record) error {
	if who.May == nil || r == nil || r.Status == nil {
		return nil
	}
	return who.May(r.Status.Channel)
}

// Hosts is all hosts.
type Hosts struct {
	set    *mirror.Set
	clock  func() time.Time
	log    *slog.Logger
	tokens *access.Tokens
	short  *shortlived.Store
	limit  int // of hosts by one token
	gone   func(tx *mirror.Tx, host string)

	records *mirror.Table[stored]
	owners  *mirror.Table[Owner]
	sighted *mirror.Table[sightings]
	names   names

	seen *presence.Book
}

// Options of New.
type Options struct {
	Tokens        *access.Tokens
	Short         *shortlived.Store
	Forgotten     func(tx *mirror.Tx, host string) // takes away what others keep of a host
	PerCredential int                              // hosts that one token may make that is not of one host
	Log           *slog.Logger
	Clock         func() time.Time
}

// New makes hosts in the state of a set, and reads what is known of them: a name
// must not go to another machine since that cannot be read.
func New(set *mirror.Set, o Options) (h *Hosts, err error) {
	h = &Hosts{set: set, clock: o.Clock, log: o.Log, tokens: o.Tokens, short: o.Short, gone: o.Forgotten, limit: o.PerCredential, seen: presence.New()}
	h.names.latest, h.names.claimed = make(map[string]named), make(map[string]string)
	if h.owners, err = mirror.Open(set, "hooks/owner", "owner of host", h.names.replace); err == nil {
		h.sighted, err = mirror.Open[sightings](set, "hooks/instance", "instance", nil)
	}
	if err == nil {
		h.records, err = mirror.Open[stored](set, "hooks/host", "record of host", nil)
	}
	if err != nil {
		return nil, fmt.Errorf("open hosts: %w", err)
	}
	return h, nil
}

// Lock is the lock of the state that whoever changes a host holds.
func Lock(host string) string { return "host:" + host }

// Locks are those of a host and of an instance that acts as it.
func Locks(host, instance string) []string {
	if instance == "" {
		return []string{Lock(host)}
	}
	return []string{Lock(host), "instance:" + instance}
}

// Record is what memory has of a host, nil if nothing is known of it or if that
// cannot be read.
func (h *Hosts) Record(host string) *Record {
	r, err := h.Read(host)
	if err != nil {
		h.log.Error("what is known of a host cannot be read", "error", err)
	}
	return r
}

// Read is Record that says what is wrong with a record: a hold might stand in it.
func (h *Hosts) Read(host string) (*Record, error) {
	r, err := h.records.Get(host).record()
	if err != nil {
		return nil, fmt.Errorf("record of host %s: %w", host, err)
	}
	return r, nil
}

// Records are all of them.
func (h *Hosts) Records() map[string]*Record {
	all := make(map[string]*Record)
	for name, st := range h.records.All() {
		if r, err := st.record(); err == nil {
			all[name] = r
		}
	}
	return all
}

// In is the record of a host in a transaction, nil if there is none.
func (h *Hosts) In(tx *mirror.Tx, host string) *Record {
	r, err := h.records.In(tx, host).record()
	tx.Keep(err)
	return r
}

// Put stores a record, and wakes who looks at the host.
func (h *Hosts) Put(tx *mirror.Tx, host string, r *Record) {
	tx.Notify(audit.Host(host))
	if r.Status != nil {
		tx.Notify(audit.Hosts(r.Status.Channel)...)
	}
	h.records.Put(tx, host, &stored{&lazy{decoded: r}})
}

// Known tells whether a host has reported or joined. To ask for something makes none.
func (h *Hosts) Known(host string) bool {
	return h.records.Get(host) != nil || h.owners.Get(host) != nil
}

// Names are those of all that reported or joined.
func (h *Hosts) Names() map[string]bool {
	names := make(map[string]bool)
	for n := range h.records.All() {
		names[n] = true
	}
	for n := range h.owners.All() {
		names[n] = true
	}
	return names
}

// Unknown is the answer about a host that was never heard of.
func Unknown(name string) error {
	return api.Errorf(api.NotFound, "no host %s has reported here", name)
}
