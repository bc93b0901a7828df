package index

import (
	"encoding/json"
	"time"

	"narwharf/cache/state"
)

// Files are the NAR files on the disk, as the one who keeps them has counted them.
type Files struct {
	Count int64 `json:"nar_files"`
	Size  int64 `json:"nar_bytes"`
}

// count is what is known of the sums over all records. It is exact for a process
// that has the state to itself: one that shares it does not count what others
// change, until it counts anew.
type count struct {
	done bool
	upTo string // while it is not: the last hash part that sum has
	sum  Totals
}

// cleanNote is the value of meta's key "clean".
type cleanNote struct {
	Totals
	Files
	Closed time.Time `json:"closed,omitzero"`
	Uses   bool      `json:"uses"` // usesNote
}

// note says what is known now. Where the records were not counted it is no JSON, as an
// older narwharf has it.
func (t *Table) note(files Files) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, err := json.Marshal(cleanNote{t.count.sum, files, time.Now().UTC(), true})
	if err != nil || !t.count.done {
		return []byte("1 " + usesNote)
	}
	return text
}

// recall takes over what note has written.
func (t *Table) recall(text []byte) {
	var n cleanNote
	if json.Unmarshal(text, &n) == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.count, t.files, t.closed = count{done: true, sum: n.Totals}, &n.Files, n.Closed
	}
}

// Closed is when the last Close in order was, the zero time if that is not known.
func (t *Table) Closed() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// Files returns how many NAR files there were at the last Close, nil if that is not
// known or they may be others now.
func (t *Table) Files() *Files {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.files
}

// countPage is how many records are counted while changes wait.
const countPage = 2000

// Totals implements Index. After a crash, and after an older narwharf, the first
// call reads the index through.
func (t *Table) Totals() (Totals, error) {
	for {
		t.mu.Lock()
		c := t.count
		t.mu.Unlock()
		if c.done {
			return c.sum, nil
		}
		if err := t.countMore(); err != nil {
			return Totals{}, err
		}
	}
}

// countMore counts a page. A damaged record does not count.
func (t *Table) countMore() error {
	t.turn.Lock()
	defer t.turn.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count.done {
		return nil
	}
	var page []state.Entry
	err := t.view(func(tx state.Reader) (err error) {
		page, err = tx.List(t.g.path(), state.Range{Limit: countPage}.After(t.count.upTo))
		return err
	})
	if err != nil {
		return err
	}
	for _, e := range page {
		if size, ok := narSize(e.Value); ok {
			t.count.sum.add(Totals{Paths: 1, NarSize: size})
		}
		t.count.upTo = e.Key
	}
	t.count.done = len(page) < countPage
	return nil
}
