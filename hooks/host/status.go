package host

import (
	"cmp"
	"errors"
	"strconv"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/intake"
)

// ErrAgain is that a report is what was said last: its answer may have been lost.
var ErrAgain = errors.New("said again")

// ErrGone is that a host is not there any more that was known.
var ErrGone = errors.New("the host was removed meanwhile")

// judge compares a report of the machine that has the name with what is known.
func (r *Record) judge(host string, st *api.Status) error {
	if r == nil || r.Status == nil {
		return nil
	}
	was := r.Status
	if st.StartID == was.StartID && st.Counter == was.Counter && intake.Same(st, was) {
		return ErrAgain
	}
	if st.StartID < was.StartID || st.StartID == was.StartID && st.Counter <= was.Counter {
		e := api.Errorf(api.StaleStatus, "a newer report of %s is here: start %d, counter %d", host, was.StartID, was.Counter)
		e.StartID, e.Counter = was.StartID, was.Counter
		return e
	}
	return nil
}

// Report stores a report, if it is news of the machine that has the name, which it
// gets if nobody has it. It returns the report before, nil if there was none. was
// is a name that the machine had, as Former tells.
//
// refused is what to answer to another machine, of which it is noted that it tried;
// any other refusal is an error.
// The transaction holds the locks of Roots (root.Locks).
// known is that the caller knows of the host, and so does not hold the MadeLock. told is what
// the roll-outs ask of it, nil for nothing.
func (h *Hosts) Report(tx *mirror.Tx, who Caller, host string, st *api.Status, was string, known bool, told *api.Directive) (old *api.Status, refused, err error) {
	self := intake.SelfOf(st)
	f := h.factsIn(tx, host, self)
	if refused = f.refused(who, host, self); refused != nil {
		h.noteClaim(tx, f.owner, who, host, st.Channel, self)
		return nil, refused, nil
	}
	record, err := f.record()
	if err == nil {
		err = record.judge(host, st)
	}
	if err != nil {
		return nil, nil, err
	}
	h.claimName(tx, f, host, st.Channel, self, was)
	next := new(Record)
	switch {
	case record != nil:
		*next = *record
	case known && f.owner == nil:
		return nil, nil, ErrGone
	case f.owner == nil:
		if err := h.make(tx, who, host, next); err != nil {
			return nil, nil, err
		}
	}
	old, next.Left = next.Status, next.left(st, told)
	next.Status, next.Reported, next.By = st, tx.Time.UTC(), who.Name
	if next.UnusedNow() == nil || st.State.Final() && st.State != api.Armed {
		next.Unused = nil
	}
	h.Put(tx, host, next)
	return old, nil, root.Set(tx, RootOwner(host), Roots(st))
}

// left is the attempt from which a host that reports went back because somebody asked: an
// operator, or a roll-out that was aborted or had failed. It is "" if it did by itself.
func (r *Record) left(st *api.Status, told *api.Directive) string {
	if st.State != api.Reverted {
		return ""
	}
	if was := r.Status; was != nil && was.State == st.State && was.Attempt == st.Attempt {
		return r.Left
	}
	for _, d := range []*api.Directive{r.Directive, told} {
		if d != nil && d.Type == "revert" && d.Seq == st.Seq && d.Seq == st.HighestSeq && d.Serial == st.DirectiveSerial {
			return st.Attempt
		}
	}
	return ""
}

// Obeyed tells whether the host is reverted because somebody asked. That is no error. A nil record is
// that of a transaction that has failed.
func (r *Record) Obeyed() bool {
	if r == nil {
		return false
	}
	st := r.Status
	return st != nil && st.State == api.Reverted && r.Left != "" && r.Left == st.Attempt
}

// Which hosts a token has made: hooks/made  <token> NUL <host>, and how many at most under
// <token> alone. Whoever adds one holds the lock of the token.
const madeBucket = "hooks/made"

func madeKey(token, host string) string { return token + "\x00" + host }

// made is how many hosts a token has made, or more where that is below the limit: then it
// is as good, and 10,000 hosts that report for the first time do not each count all others.
func (h *Hosts) made(tx *mirror.Tx, token string) (n int, err error) {
	row, err := tx.Get(madeBucket, token)
	if err != nil {
		return 0, err
	}
	if n, err = strconv.Atoi(string(row)); err == nil && n < h.limit {
		return n, nil
	}
	n = 0 // nobody counted yet, a host went, or it is too many
	err = state.Each(tx, madeBucket, state.Prefix(madeKey(token, "")), func(state.Entry) error { n++; return nil })
	return n, err
}

// MadeLock is the lock of the state for who reports as a host that is not there yet.
func MadeLock(who Caller) string { return "made:" + who.TokenID }

// make counts a new host to the token that reports it, if that is not of one host: one
// that has leaked could invent any number.
func (h *Hosts) make(tx *mirror.Tx, who Caller, host string, r *Record) error {
	if who.Host != "" || who.TokenID == "" {
		return nil
	}
	n, err := h.made(tx, who.TokenID)
	if err != nil {
		return err
	}
	if n >= h.limit {
		return api.Errorf(api.Forbidden, "the token %s has made %d hosts, as many as limits.hosts_per_credential lets one token: remove hosts (narwharf host remove), give this one a token of its own (narwharf token new --join), or raise the limit", who.Name, n)
	}
	r.Credential = who.TokenID
	err = tx.Put(madeBucket, who.TokenID, strconv.AppendInt(nil, int64(n)+1, 10))
	return cmp.Or(err, tx.Put(madeBucket, madeKey(who.TokenID, host), nil))
}

// unmake is for a host that goes.
func unmake(tx *mirror.Tx, host string, r *Record) {
	if r != nil && r.Credential != "" {
		tx.Keep(tx.Delete(madeBucket, madeKey(r.Credential, host)))
		tx.Keep(tx.Delete(madeBucket, r.Credential)) // whoever is next counts anew
	}
}
