package compress

import (
	"fmt"
	"io/fs"
	"strings"

	"narwharf/cache/local/encoder"
	"narwharf/narinfo"
)

// suffix ends the names of URLs and of files.
const suffix = encoder.Suffix

// parseName takes the NAR hash out of "<32 nix32>-<52 nix32>.nar.zst".
func parseName(name string) (narinfo.Hash, error) {
	base, ok := strings.CutSuffix(name, suffix)
	if part, hash, dash := strings.Cut(base, "-"); ok && dash && narinfo.ValidHash(part) {
		if h, err := narinfo.ParseBase32(hash); err == nil {
			return h, nil
		}
	}
	return narinfo.Hash{}, fmt.Errorf("packed nar %.100q: not <hash part>-<nar hash>%s: %w", name, suffix, fs.ErrInvalid)
}

// fileName is the name of a packed NAR in the folder.
func fileName(key narinfo.Hash) string { return key.Base32() + suffix }

// parseFileName is the inverse of fileName.
func parseFileName(name string) (narinfo.Hash, bool) {
	base, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return narinfo.Hash{}, false
	}
	h, err := narinfo.ParseBase32(base)
	return h, err == nil
}
