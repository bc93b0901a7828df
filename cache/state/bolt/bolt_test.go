package bolt

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"narwharf/cache/state"
)

func TestSmoke(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "db"), Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var got []string
	stop := s.Watch(func(topics []string) { got = append(got, topics...) })
	defer stop()
	if err := s.Update(ctx, nil, func(tx state.Tx) error {
		tx.Notify("a")
		for _, k := range []string{"a", "b", "c"} {
			if err := tx.Put("x/y", k, nil); err != nil {
				return err
			}
		}
		return tx.Append("x/log", func(p uint64) ([]byte, error) { return []byte(state.Uint64Key(p)), nil })
	}); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	if err := s.Update(ctx, nil, func(tx state.Tx) error { _ = tx.Delete("x/y", "a"); return boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := s.View(ctx, func(tx state.Reader) error {
		list, err := tx.List("x/y", state.Range{To: "c", Reverse: true})
		if len(list) != 2 || list[0].Key != "b" || list[1].Key != "a" || list[0].Value == nil {
			t.Errorf("%v", list)
		}
		rec, err2 := tx.ReadLog("x/log", 0, 0)
		if len(rec) != 1 || rec[0].Position != 1 {
			t.Errorf("%v", rec)
		}
		return errors.Join(err, err2)
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != "a" {
		t.Errorf("%q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.View(ctx, nil); !errors.Is(err, state.ErrClosed) {
		t.Error(err)
	}
}
