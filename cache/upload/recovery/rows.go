package recovery

import (
	"context"
	"slices"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/upload"
)

const rowsAtOnce = 500

// giveRows gives rows to NAR files that have none, as if somebody asked for them now.
func giveRows(ctx context.Context, s *upload.Store, names []string) error {
	for part := range slices.Chunk(names, rowsAtOnce) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := giveSome(s, part); err != nil {
			return err
		}
	}
	return nil
}

func giveSome(s *upload.Store, names []string) error {
	var locks, lack []string
	for _, name := range names {
		row, err := s.Index.File(name)
		if err != nil {
			return err
		}
		if row == nil {
			lack, locks = append(lack, name), append(locks, index.NarLock(name))
		}
	}
	if len(lack) == 0 {
		return nil
	}
	return s.Index.Change(locks, func(tx *index.Tx) error {
		now, err := tx.Now()
		for _, name := range lack {
			var row *index.File
			if row, err = tx.File(name); err == nil && row == nil {
				err = tx.PutFile(name, &index.File{Asked: now})
			}
			if err != nil {
				return err
			}
		}
		return err
	})
}

// FindUnnamed gives rows to the NAR files that no record names and that have none: their
// time begins now.
func FindUnnamed(ctx context.Context, s *upload.Store) error {
	var found []string
	err := s.Files.List("nar", func(st blob.Info) error {
		if users, err := s.Index.Users(st.Name); err != nil {
			return err
		} else if len(users) == 0 {
			found = append(found, st.Name)
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return giveRows(ctx, s, found)
}
