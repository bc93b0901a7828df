package state

// Range is a part of a bucket: from From on and below To, where "" sets no
// bound. Limit is how many entries at most, 0 for MaxPage (in a Scan: for all).
type Range struct {
	From, To string
	Reverse  bool // the last first
	Limit    int
}

// Prefix is the range of the keys that begin with p.
func Prefix(p string) Range {
	return Range{From: p, To: after(p)}
}

// After is r without the keys up to and including key.
func (r Range) After(key string) Range {
	if r.Reverse {
		r.To = key
	} else {
		r.From = key + "\x00"
	}
	return r
}

// after is the first string behind all that begin with p, "" if there is none.
func after(p string) string {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			return p[:i] + string([]byte{p[i] + 1})
		}
	}
	return ""
}

// Each calls fn with the entries of a range, in order, within one transaction.
func Each(tx Reader, bucket string, r Range, fn func(e Entry) error) error {
	for left := r.Limit; ; {
		r.Limit = PageSize(left)
		page, err := tx.List(bucket, r)
		if err != nil {
			return err
		}
		for _, e := range page {
			if err := fn(e); err != nil {
				return err
			}
		}
		if left -= len(page); len(page) < r.Limit || left == 0 {
			return nil
		}
		r = r.After(page[len(page)-1].Key)
	}
}
