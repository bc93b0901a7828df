package cache

import "narwharf/cache/index"

// faultyIndex fails where it is told to. applied says whether the change took
// place all the same, as in a commit that fails at its last sync.
type faultyIndex struct {
	index.Index
	fail func(op string) (err error, applied bool)
}

func (f *faultyIndex) change(op string, do func() error) error {
	err, applied := f.fail(op)
	if err != nil && !applied {
		return err
	}
	if done := do(); done != nil {
		return done
	}
	return err
}

func (f *faultyIndex) Put(r *index.Record) error {
	return f.change("put", func() error { return f.Index.Put(r) })
}

func (f *faultyIndex) Delete(hash string) error {
	return f.change("delete", func() error { return f.Index.Delete(hash) })
}
