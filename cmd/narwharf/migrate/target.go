package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"narwharf/cache/blob"
	"narwharf/cache/state"
	"narwharf/cmd/narwharf/server/storage"
)

// The mark of a migration is beside what it copies, in a file and in a row, until it is at its end. It names the
// migration; ended is before the name when all is copied and compared, and only the old side is to be told.
const (
	markFile   = "narwharf-migration"
	markBucket = "narwharf"
	markKey    = "migration"
	ended      = "ended "
)

// name is what a migration is known by.
func (m *migration) name() string {
	return "migration from " + m.from.String() + " and " + storage.Place(m.old)
}

// claim looks at a mark. has tells whether anything is there already.
func (m *migration) claim(where, mark string, has bool) error {
	switch {
	case mark == m.name(), mark == "" && (!has || m.over):
		return nil
	case mark == ended+m.name():
		m.ended = true
		return nil
	case mark != "":
		return fmt.Errorf("%s: another %s is not at its end there", where, strings.TrimPrefix(mark, ended))
	}
	return fmt.Errorf("%s is not empty, and no migration from here has begun it: name an empty place, or give --over if it shall become what the old one is", where)
}

// claimState sees to it that a state is empty, or was begun by this migration, and keeps servers off it.
func (m *migration) claimState(ctx context.Context) error {
	frozen, err := m.to.Frozen(ctx)
	if err == nil && frozen != nil {
		err = fmt.Errorf("%s: %w", m.to, frozen)
	}
	if err != nil {
		return err
	}
	var mark string
	err = m.to.View(ctx, func(tx state.Reader) error {
		text, err := tx.Get(markBucket, markKey)
		mark = string(text)
		return err
	})
	if err != nil {
		return err
	}
	buckets, logs, err := m.to.Names(ctx)
	if err == nil {
		err = m.claim(m.to.String(), mark, len(buckets)+len(logs) > 0)
	}
	if err != nil || m.ended {
		return err
	}
	err = m.to.Freeze(ctx, &state.Freeze{Why: "the " + m.name() + " into it is not at its end: run narwharf migrate again", For: m.name()})
	if err != nil {
		return err
	}
	return m.markState(ctx, m.name())
}

func (m *migration) markState(ctx context.Context, mark string) error {
	return m.to.Update(ctx, []string{markBucket}, func(tx state.Tx) error {
		if mark == "" {
			return tx.Delete(markBucket, markKey)
		}
		return tx.Put(markBucket, markKey, []byte(mark))
	})
}

// claimContent is claimState for content files.
func (m *migration) claimContent() error {
	text, err := blob.ReadFile(m.toFiles, markFile, 1<<16)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	empty, err := isEmpty(m.toFiles)
	if err == nil {
		err = m.claim(storage.Place(m.new), strings.TrimSpace(string(text)), !empty)
	}
	if err != nil || m.ended {
		return err
	}
	return m.markContent(m.name())
}

func (m *migration) markContent(mark string) error {
	return blob.WriteFile(m.toFiles, markFile, []byte(mark+"\n"))
}

var errFull = errors.New("it is not empty")

func isEmpty(files blob.Store) (bool, error) {
	folders, err := files.Folders("")
	if err == nil && len(folders) > 0 {
		return false, nil
	}
	if err == nil {
		err = files.List("", func(blob.Info) error { return errFull })
	}
	if errors.Is(err, errFull) {
		return false, nil
	}
	return err == nil, err
}
