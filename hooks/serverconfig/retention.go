package serverconfig

import (
	"errors"
	"fmt"
	"time"

	"narwharf/hooks/configfile"
)

// Retention is what is kept, and for how long: docs/retention.md.
type Retention struct {
	Grace        configfile.Duration `toml:"grace"`
	Lease        configfile.Duration `toml:"lease"`
	KeepReleases int                 `toml:"keep_releases"`
	ForgetHosts  configfile.Duration `toml:"forget_hosts"`
	MaxSize      configfile.Size     `toml:"max_size"` // 0: no bound, as of the next two
	MaxAge       configfile.Duration `toml:"max_age"`
	MinFree      configfile.Size     `toml:"min_free"`
	Interval     configfile.Duration `toml:"interval"`
}

// retention is what a file without the section means: nothing goes but when the disk is
// full.
func retention() Retention {
	const day = configfile.Duration(24 * time.Hour)
	return Retention{Grace: 31 * day, Lease: day, KeepReleases: 10, ForgetHosts: 90 * day, Interval: configfile.Duration(time.Hour)}
}

func (r *Retention) check() error {
	const second = configfile.Duration(time.Second)
	text := func(d configfile.Duration) string { return time.Duration(d).String() }
	switch {
	case r.Lease < second:
		return errors.New("retention.lease: 0s would let a collection take what is being uploaded")
	case r.Grace < r.Lease:
		return fmt.Errorf("retention.grace: %s is below retention.lease, %s, which is the part of it that is never broken", text(r.Grace), text(r.Lease))
	case r.KeepReleases < 1:
		return errors.New("retention.keep_releases: a channel keeps one release at least, the current one")
	case r.ForgetHosts < second:
		return errors.New("retention.forget_hosts: 0s would let a collection take what hosts run")
	case r.MaxAge != 0 && r.MaxAge < r.Grace:
		return fmt.Errorf("retention.max_age: %s is below retention.grace, %s: nothing goes before that is over", text(r.MaxAge), text(r.Grace))
	case r.Interval < second:
		return errors.New("retention.interval: 0s would never rest")
	}
	return nil
}
