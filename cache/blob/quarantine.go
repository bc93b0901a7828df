package blob

import (
	"errors"
	"io"
	"io/fs"
)

// QuarantineDir is where damaged files go; each keeps its own name there.
const QuarantineDir = "quarantine"

// Quarantine copies a file to where a person can look at it, and tells what it
// copied. There being none is no error.
func Quarantine(s Store, name string) (Info, error) {
	in, err := Uncached(s).Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, nil
	}
	if err != nil {
		return Info{}, err
	}
	defer in.Close()
	out, err := s.Create(QuarantineDir+"/"+name, in.Size)
	if err != nil {
		return Info{}, err
	}
	defer out.Abort()
	if _, err := io.Copy(out, in.Content); err != nil {
		return Info{}, err
	}
	return in.Info, out.Commit()
}
