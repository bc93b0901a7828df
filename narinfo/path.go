package narinfo

import (
	"errors"
	"fmt"
	"strings"
)

// Path is the base name of a store path, "<32 characters of nix32>-<name>",
// without the store directory. The zero value means there is none. A Path that
// ParsePath, ParseBase or Parse returned is well formed; one converted from a
// plain string is as good as that string.
type Path string

const (
	hashLen = 32  // characters: 160 bits, 5 bits each
	nameMax = 211 // StorePath::MaxPathLen of Nix: a suffix such as ".lock" still fits in a file name
)

// ParsePath reads the full name of a store path, storeDir + "/" + base name.
// Anything else below storeDir, such as a file inside a store path or a path
// that is not in its shortest form, is an error.
func ParsePath(storeDir, s string) (Path, error) {
	if len(s) <= len(storeDir) || s[len(storeDir)] != '/' || s[:len(storeDir)] != storeDir {
		return "", fmt.Errorf("store path %s is not directly in %s", quote(s), quote(storeDir))
	}
	base := s[len(storeDir)+1:]
	if err := checkBase(base); err != nil {
		return "", fmt.Errorf("store path %s: %w", quote(s), err)
	}
	return Path(base), nil
}

// ParseBase reads the base name of a store path by the rules of Nix 2.34
// (StorePath::StorePath and checkName in src/libstore/path.cc): 32 characters of
// nix32, a dash, and a name of 1 to 211 of the characters 0-9 a-z A-Z + - . _ ? =
// which is not "." or ".." and does not start with ".-" or "..-". Names with
// another leading dot are fine; only Nix 2.19 and the first 2.20 refused them all.
func ParseBase(s string) (Path, error) {
	if err := checkBase(s); err != nil {
		return "", fmt.Errorf("store path name %s: %w", quote(s), err)
	}
	return Path(s), nil
}

// Hash is the first 32 characters: what "/<hash>.narinfo" names. It is empty
// for the zero value.
func (p Path) Hash() string {
	if len(p) < hashLen {
		return ""
	}
	return string(p[:hashLen])
}

// Name is what follows the hash and its dash, such as "hello-2.12.1".
func (p Path) Name() string {
	if len(p) <= hashLen {
		return ""
	}
	return string(p[hashLen+1:])
}

// In is the full path in the store directory storeDir, which has no trailing
// slash.
func (p Path) In(storeDir string) string {
	return storeDir + "/" + string(p)
}

// ValidHash reports whether s has the form of a store path's hash part:
// exactly 32 characters of nix32.
func ValidHash(s string) bool {
	return len(s) == hashLen && only(s, inNix32)
}

// checkBase says what is wrong with s as a base name, without naming s.
func checkBase(s string) error {
	if strings.Contains(s, "/") {
		return errors.New("it must be a base name without any directory")
	}
	if len(s) <= hashLen || s[hashLen] != '-' {
		return errors.New("it must be 32 characters of hash, a dash and a name")
	}
	for i := range hashLen {
		if classes[s[i]]&inNix32 == 0 {
			return fmt.Errorf("its hash has %q, which is not in Nix's base-32 alphabet (digits and lower-case letters without e, o, t, u)", s[i:i+1])
		}
	}
	return checkName(s[hashLen+1:])
}

func checkName(name string) error {
	if name == "" {
		return errors.New("its name is empty")
	}
	if len(name) > nameMax {
		return fmt.Errorf("its name has %d characters, more than %d", len(name), nameMax)
	}
	// "." and ".." up to a dash or the end would be special in a directory.
	if first, _, _ := strings.Cut(name, "-"); first == "." || first == ".." {
		return fmt.Errorf("its name must not start with the component %q", first)
	}
	for i := range len(name) {
		if classes[name[i]]&inName == 0 {
			return fmt.Errorf("its name has %q, which store paths may not have", name[i:i+1])
		}
	}
	return nil
}
