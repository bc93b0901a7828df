package grammar

import (
	"bytes"
	"fmt"

	"narwharf/narinfo/clip"
)

// The limits of Nix's own reader (src/libutil/archive.cc, since the security releases 2.33.6 and
// 2.34.7). Nix documents no limit; what exceeds these could be stored here but not be fetched by
// a current Nix.
const (
	// MaxName is the longest name of a directory entry, in bytes.
	MaxName = 255
	// MaxTarget is the longest target of a symbolic link, in bytes.
	MaxTarget = 4095
	// MaxDepth is how many nodes may lie on one path, the root included: a path in a NAR has at
	// most MaxDepth-1 names.
	MaxDepth = 64
)

// BadName says what is wrong with the name of a directory entry, or "" if nothing is.
func BadName[T string | []byte](name T) string {
	switch {
	case len(name) == 0:
		return "the name is empty"
	case len(name) > MaxName:
		return fmt.Sprintf("the name is %d bytes long, the longest allowed is %d", len(name), MaxName)
	case string(name) == "." || string(name) == "..":
		return fmt.Sprintf("the name %q is not allowed", name)
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Sprintf("the name %s contains a slash or a NUL byte", clip.Quote(string(name), 160))
		}
	}
	return ""
}

// BadTarget says what is wrong with the target of a symbolic link, or "" if nothing is.
func BadTarget[T string | []byte](target T) string {
	switch {
	case len(target) == 0:
		return "the target of the link is empty"
	case len(target) > MaxTarget:
		return fmt.Sprintf("the target of the link is %d bytes long, the longest allowed is %d", len(target), MaxTarget)
	case bytes.IndexByte([]byte(target), 0) >= 0:
		return "the target of the link contains a NUL byte"
	}
	return ""
}
