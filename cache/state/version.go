package state

import (
	"context"
	"fmt"
)

// CheckVersion refuses a state that a newer program wrote: one whose version, at a key, is
// another. A state without a version gets this one.
func CheckVersion(s Store, bucket, key, version string) error {
	return s.Update(context.Background(), []string{bucket}, func(tx Tx) error {
		v, err := tx.Get(bucket, key)
		switch {
		case err != nil || string(v) == version:
			return err
		case v == nil:
			return tx.Put(bucket, key, []byte(version))
		}
		return fmt.Errorf("%s has version %s and this narwharf knows version %s: use the newer narwharf", s, v, version)
	})
}
