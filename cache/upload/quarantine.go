package upload

import (
	"errors"
	"io"
	"io/fs"
	"strings"

	"narwharf/cache/blob"
)

// QuarantineDir is where damaged files go; a NAR keeps its own name there.
const QuarantineDir = "quarantine"

// Quarantine moves a file out of the way. The caller holds its lock.
func (s *Store) Quarantine(name string) error {
	st, err := CopyToQuarantine(s.Files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, "nar/") {
		return s.removeNar(st)
	}
	return s.Files.Remove(name)
}

// CopyToQuarantine copies a file to where a person can look at it.
func CopyToQuarantine(files blob.Store, name string) (blob.Info, error) {
	in, err := files.Open(name)
	if err != nil {
		return blob.Info{}, err
	}
	defer in.Close()
	out, err := files.Create(QuarantineDir+"/"+name, in.Size)
	if err != nil {
		return blob.Info{}, err
	}
	defer out.Abort()
	if _, err := io.Copy(out, in.Content); err != nil {
		return blob.Info{}, err
	}
	return in.Info, out.Commit()
}
