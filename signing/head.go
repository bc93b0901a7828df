package signing

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"narwharf/signing/ijson"
)

// Bounds of a release. A release past any of them is refused by every reader.
const (
	MaxSeq     = ijson.MaxNumber
	MaxSeqJump = 1000 // a larger step is refused: seq cannot be used up
	MaxTargets = 100_000
	maxHead    = 16 << 10 // bytes; each host is sent all of it
	maxMeta    = 32       // fields
	maxValue   = 1024     // bytes of one value of meta
)

// A Head is what a promoter signs: which channel, which step of its history,
// and the Merkle root over the entries. docs/formats.md is its specification.
type Head struct {
	V        int               `json:"v"`      // 1
	Origin   string            `json:"origin"` // which cache and channel, as hosts have it configured
	Channel  string            `json:"channel"`
	Seq      int64             `json:"seq"`
	Targets  Targets           `json:"targets"`
	Order    *int64            `json:"order,omitempty"` // of the source: commit count, run number
	Rollback bool              `json:"rollback"`
	Created  time.Time         `json:"created"`        // UTC, whole seconds
	Expires  *time.Time        `json:"expires"`        // nil: never
	Meta     map[string]string `json:"meta,omitempty"` // for people: rev, url, by
	// KeysVersion is of the statement (package keyring) under whose keys it was made. A host
	// that knows less of them does not take it: somebody withholds one.
	KeysVersion int64 `json:"keys_version,omitempty"`
}

// Targets commits to the entries of a release.
type Targets struct {
	Count int64  `json:"count"`
	Root  Digest `json:"root"` // RFC 6962, section 2.1
}

var (
	channelGrammar = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	originGrammar  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:-]{0,252}(/[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}){1,8}$`)
	metaGrammar    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,62}$`)
)

// CheckChannel says what is wrong with the name of a channel.
func CheckChannel(name string) error {
	if !channelGrammar.MatchString(name) {
		return fmt.Errorf("%q is not a channel name: 1 to 63 of a-z 0-9 . _ -, the first a letter or digit", clipped(name))
	}
	return nil
}

// CheckOrigin says what is wrong with an origin.
func CheckOrigin(origin string) error {
	if !originGrammar.MatchString(origin) {
		return fmt.Errorf("origin %q is not like cache.example.org/prod", clipped(origin))
	}
	return nil
}

// ParseHead reads and checks a head's bytes. Unknown fields are let through:
// what a reader must not pass over is named in crit, or gets another v.
func ParseHead(payload []byte) (*Head, error) {
	if len(payload) > maxHead {
		return nil, fmt.Errorf("head: %d bytes, at most %d", len(payload), maxHead)
	}
	o, err := ijson.Parse(payload)
	if err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	h, err := headOf(o)
	if err == nil {
		err = h.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	return h, nil
}

func headOf(o ijson.Object) (*Head, error) {
	// First of all the version: another one may have other fields.
	if i := o.Find("v"); i >= 0 {
		if v, ok := o[i].Value.(int64); ok && v != 1 {
			return nil, unknownVersion(v)
		}
	}
	r := ijson.Read(o, "v", "origin", "channel", "seq", "targets", "order", "rollback", "created", "expires", "meta", "keys_version")
	h := &Head{
		V: int(r.Int("v")), Origin: r.String("origin"), Channel: r.String("channel"), Seq: r.Int("seq"),
		Rollback: r.Bool("rollback"), Created: ijson.Text(r, "created", ijson.ParseTime),
	}
	t := ijson.Read(r.Sub("targets"), "count", "root")
	h.Targets = Targets{Count: t.Int("count"), Root: ijson.Text(t, "root", ParseDigest)}
	r.Within("targets", t)
	if r.Has("order") {
		n := r.Int("order")
		h.Order = &n
	}
	if !r.Null("expires") {
		at := ijson.Text(r, "expires", ijson.ParseTime)
		h.Expires = &at
	}
	if r.Has("keys_version") {
		h.KeysVersion = r.Int("keys_version")
	}
	if r.Has("meta") {
		h.Meta = make(map[string]string)
		for _, m := range r.Sub("meta") {
			s, ok := m.Value.(string)
			if !ok {
				r.Fail("meta: %q is not a string", clipped(m.Name))
			}
			h.Meta[m.Name] = s
		}
	}
	if r.Err != nil {
		return nil, r.Err
	}
	return h, nil
}

func unknownVersion(v int64) error {
	return fmt.Errorf("version %d is not known here (1 is): a newer narwharf made it", v)
}

// Check says what is wrong with a head on its own.
func (h *Head) Check() error {
	switch {
	case h.V != 1:
		return unknownVersion(int64(h.V))
	case h.Seq < 1 || h.Seq > MaxSeq:
		return fmt.Errorf("seq %d is not between 1 and 2^53-1", h.Seq)
	case h.KeysVersion < 0:
		return errors.New("keys_version is below 0")
	case h.Targets.Count < 1 || h.Targets.Count > MaxTargets:
		return fmt.Errorf("%d targets are not between 1 and %d", h.Targets.Count, MaxTargets)
	case h.Targets.Root.IsZero():
		return errors.New("targets.root is missing")
	case h.Order != nil && (*h.Order > ijson.MaxNumber || *h.Order < -ijson.MaxNumber):
		return fmt.Errorf("order %d is not between -(2^53-1) and 2^53-1", *h.Order)
	case !ijson.PlainTime(h.Created):
		return errors.New("created is missing, before 1970, or not in UTC and whole seconds")
	case h.Expires != nil && !ijson.PlainTime(*h.Expires):
		return errors.New("expires is before 1970, or not in UTC and whole seconds")
	case h.Expires != nil && !h.Expires.After(h.Created):
		return errors.New("it expires before it was created")
	case len(h.Meta) > maxMeta:
		return fmt.Errorf("%d fields of meta, at most %d", len(h.Meta), maxMeta)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Meta)) {
		if err := checkMeta(name, h.Meta[name]); err != nil {
			return err
		}
	}
	return cmp.Or(CheckOrigin(h.Origin), CheckChannel(h.Channel))
}

// checkMeta keeps from meta what could fool the person at whose terminal it is
// shown: a commit's title ends up here, and anyone may have written that.
func checkMeta(name, value string) error {
	if !metaGrammar.MatchString(name) {
		return fmt.Errorf("meta: %q is not a name: 1 to 63 of a-z A-Z 0-9 . _ : / -, the first a letter or digit", clipped(name))
	}
	if len(value) > maxValue {
		return fmt.Errorf("meta: %s has %d bytes, at most %d", name, len(value), maxValue)
	}
	if err := ijson.CheckText(value); err != nil {
		return fmt.Errorf("meta: %s %w", name, err)
	}
	return nil
}

// payload is the head as it is signed.
func (h *Head) payload() ([]byte, error) {
	if err := h.Check(); err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	text, err := json.Marshal(h)
	if err == nil && len(text) > maxHead {
		err = fmt.Errorf("head: %d bytes, at most %d: it has too much meta", len(text), maxHead)
	}
	return text, err
}
