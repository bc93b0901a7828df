package bolt

import (
	"errors"
	"testing"

	"go.etcd.io/bbolt"

	"narwharf/cache/state"
)

// An older version's log has positions in a row and no sequence.
func TestLogOfAnOlderVersion(t *testing.T) {
	st, _ := open(t)
	s := st.(*Store)
	err := s.db.Update(func(tx *bbolt.Tx) error {
		root, err := tx.CreateBucket([]byte("hooks"))
		if err != nil {
			return err
		}
		b, err := root.CreateBucket([]byte("events"))
		if err != nil {
			return err
		}
		return errors.Join(b.Put([]byte(state.Uint64Key(6)), []byte("six")), b.Put([]byte(state.Uint64Key(7)), []byte("seven")))
	})
	if err != nil {
		t.Fatal(err)
	}
	var at uint64
	err = s.Update(t.Context(), nil, func(tx state.Tx) error {
		return tx.Append("hooks/events", func(p uint64) ([]byte, error) { at = p; return nil, nil })
	})
	if err != nil || at != 8 {
		t.Errorf("position %d, %v", at, err)
	}
}
