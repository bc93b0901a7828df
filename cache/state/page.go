package state

import (
	"context"
	"fmt"
	"strings"
)

// PageSize is how many entries a List with this limit returns at most.
func PageSize(limit int) int {
	if limit <= 0 || limit > MaxPage {
		return MaxPage
	}
	return limit
}

// Pages is Scan by Views, for implementations.
func Pages(ctx context.Context, s Store, bucket string, r Range, fn func(page []Entry) error) error {
	for left := r.Limit; ; {
		page := r
		page.Limit = PageSize(left)
		var list []Entry
		err := s.View(ctx, func(tx Reader) (err error) {
			list, err = tx.List(bucket, page)
			return err
		})
		if err != nil {
			return err
		}
		if len(list) > 0 {
			if err := fn(list); err != nil {
				return err
			}
		}
		if len(list) < page.Limit {
			return nil
		}
		if left > 0 {
			if left -= len(list); left <= 0 {
				return nil
			}
		}
		r = r.After(list[len(list)-1].Key)
	}
}

// CheckEntry returns ErrLimit, wrapped, for what no implementation takes.
func CheckEntry(bucket, key string, value []byte) error {
	switch {
	case bucket == "" || strings.HasPrefix(bucket, "/") || strings.HasSuffix(bucket, "/") || strings.Contains(bucket, "//"):
		return fmt.Errorf("bucket %q is no name: %w", bucket, ErrLimit)
	case key == "" || len(key) > MaxKey:
		return fmt.Errorf("key of %d bytes in %s, from 1 to %d may be: %w", len(key), bucket, MaxKey, ErrLimit)
	case len(value) > MaxValue:
		return fmt.Errorf("value of %d bytes in %s, %d at most: %w", len(value), bucket, MaxValue, ErrLimit)
	}
	return nil
}

// Within checks that a bucket is the one that a Replace fills, or below it.
func Within(replaced, bucket string) error {
	if bucket != replaced && !strings.HasPrefix(bucket, replaced+"/") {
		return fmt.Errorf("%s is not within %s", bucket, replaced)
	}
	return nil
}
