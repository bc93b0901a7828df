package narinfo

import (
	"errors"
	"fmt"
	"strings"
)

const (
	sigLen     = 88     // characters of 64 bytes in padded base64
	lastDigits = "AQgw" // the digits whose lowest four bits are zero
)

// ValidSig reports whether s is "name:base64 of 64 bytes" in the one way Nix prints it.
func ValidSig(s string) bool { return checkSig(s) == nil }

// checkSig takes "name:base64 of 64 bytes" in the one way Nix prints it. The
// last digit before the padding has four bits that hold nothing; they must be
// zero, or one signature would have sixteen texts.
func checkSig(s string) error {
	name, data, ok := strings.Cut(s, ":")
	switch {
	case !ok:
		return errors.New(`the Sig has no colon; it is "key name:base64"`)
	case !ValidKeyName(name):
		return fmt.Errorf("the Sig has the key name %s; a name must not be empty nor hold spaces or control characters", quote(name))
	case len(data) != sigLen || data[sigLen-2:] != "==" || !only(data[:sigLen-2], inBase64) ||
		!strings.Contains(lastDigits, data[sigLen-3:sigLen-2]):
		return fmt.Errorf("the Sig by %s is not base64 of 64 bytes", quote(name))
	}
	return nil
}

// digestBytes are the algorithms of Nix and the sizes of their digests.
var digestBytes = map[string]int{"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64, "blake3": 32}

// checkCA takes "", "text:sha256:<digest>" and "fixed:[r:|git:]<algorithm>:
// <digest>" (ContentAddress::parse in src/libstore/content-address.cc). The
// digest is checked as far as its length and digits: a client that cannot read
// it refuses the whole narinfo.
func checkCA(s string) error {
	if s == "" {
		return nil
	}
	method, rest, _ := strings.Cut(s, ":")
	if method == "fixed" {
		if short, ok := strings.CutPrefix(rest, "r:"); ok {
			rest = short
		} else if short, ok := strings.CutPrefix(rest, "git:"); ok {
			rest = short
		}
	} else if method != "text" {
		return fmt.Errorf("CA %s starts with neither text: nor fixed: as it must", quote(s))
	}
	algo, digest, ok := strings.Cut(rest, ":")
	n := digestBytes[algo]
	switch {
	case !ok:
		return fmt.Errorf("CA %s does not end in <algorithm>:<digest>", quote(s))
	case n == 0:
		return fmt.Errorf("CA %s has a hash algorithm that Nix does not know", quote(s))
	case method == "text" && algo != "sha256":
		return fmt.Errorf("CA %s is of a text, so its algorithm must be sha256", quote(s))
	case len(digest) != 2*n && len(digest) != (8*n+4)/5 && len(digest) != (n+2)/3*4,
		!only(digest, inDigest):
		return fmt.Errorf("CA %s has no digest of %d bytes in base 16, nix32 or base64", quote(s), n)
	}
	return nil
}
