package index

import "narwharf/cache/state"

// After returns the record of the first path whose hash part is above a given one, nil
// if there is none. One that is damaged is an error, and comes with its hash part.
func (t *Table) After(hash string) (next string, r *Record, err error) {
	err = t.view(func(tx state.Reader) error {
		next, r = "", nil
		page, err := tx.List(t.g.path(), state.Range{From: hash + "\x00", Limit: 1})
		if err != nil || len(page) == 0 {
			return err
		}
		next = page[0].Key
		r, err = decode(next, page[0].Value)
		return err
	})
	return next, r, err
}
