package narinfo

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// required are the keys that must be there, each a bit of a set by its place; the other keys
// of one line have the bits after them.
var required = [...]string{"StorePath", "URL", "Compression", "NarHash", "NarSize"}

// Parse reads one narinfo strictly; the package comment says what it refuses
// and what it normalises. The error is one line of less than 512 bytes, fit to
// be the answer to an upload. text is not kept.
func Parse(text []byte) (*Info, error) {
	if len(text) == 0 {
		return nil, errors.New("narinfo is empty")
	}
	i := new(Info)
	var seen int
	rest := string(text)
	for n := 1; rest != ""; n++ {
		line, after, ok := strings.Cut(rest, "\n")
		if !ok {
			return nil, fmt.Errorf("narinfo line %d: no newline at its end; the text may be cut short", n)
		}
		rest = after
		key, value, err := splitLine(line)
		if err == nil {
			var bit int
			if bit, err = i.set(key, value, line); seen&bit != 0 {
				err = fmt.Errorf("a second %s line; there can be only one", key)
			}
			seen |= bit
		}
		if err != nil {
			return nil, fmt.Errorf("narinfo line %d: %w", n, err)
		}
	}
	for bit, key := range required {
		if seen&(1<<bit) == 0 {
			return nil, fmt.Errorf("narinfo has no %s line", key)
		}
	}
	i.References = sorted(i.References)
	i.Sigs = sorted(i.Sigs)
	return i, nil
}

// splitLine splits at the first colon and the space behind it.
func splitLine(line string) (key, value string, err error) {
	colon := strings.IndexByte(line, ':')
	switch {
	case line == "":
		return "", "", errors.New("it is blank; a narinfo has no blank lines")
	case line[len(line)-1] == '\r':
		return "", "", errors.New("it ends in CR LF; narinfo lines end in LF alone")
	case colon < 0:
		return "", "", fmt.Errorf(`%s has no colon; each line is "Key: value"`, quote(line))
	case colon == 0:
		return "", "", fmt.Errorf(`%s has no key before the colon; each line is "Key: value"`, quote(line))
	case colon+1 == len(line) || line[colon+1] != ' ':
		return "", "", fmt.Errorf("no space follows the colon after %s", quote(line[:colon]))
	}
	return line[:colon], line[colon+2:], nil
}

// checkUnknown looks at a line that is dropped: dropping what is only almost a
// known key, " Sig" or "Sig\x00", would hide a mistake.
func checkUnknown(key, line string) error {
	if strings.IndexByte(key, ' ') >= 0 {
		return fmt.Errorf("the key %s has a space in it", quote(key))
	}
	if hasControl(line) {
		return fmt.Errorf("the line of %s has a control character", quote(key))
	}
	return nil
}

// set checks one value and stores it. bit is that of a key which has one line.
func (i *Info) set(key, value, line string) (bit int, err error) {
	switch key {
	case "StorePath":
		bit = 1 << 0
		i.StoreDir, i.Path, err = splitStorePath(value)
	case "URL":
		bit = 1 << 1
		i.URL, err = value, checkURL(value)
	case "Compression":
		bit = 1 << 2
		i.Compression, err = value, checkCompression(value)
	case "NarHash":
		bit = 1 << 3
		i.NarHash, err = hashField(key, value)
	case "NarSize":
		bit = 1 << 4
		i.NarSize, err = sizeField(key, value, 1)
	case "FileHash":
		bit = 1 << 5
		i.FileHash, err = hashField(key, value)
	case "FileSize":
		bit = 1 << 6
		i.FileSize, err = sizeField(key, value, 0)
	case "References":
		bit = 1 << 7
		i.References, err = splitReferences(value)
	case "Deriver":
		bit = 1 << 8
		i.Deriver, err = derivation(value)
	case "CA":
		bit = 1 << 9
		i.CA, err = value, checkCA(value)
	case "Sig":
		i.Sigs, err = append(i.Sigs, value), checkSig(value)
	default:
		err = checkUnknown(key, line)
	}
	return bit, err
}

// splitStorePath cuts a full path into store directory and base name. Which
// directory is right is for the cache to say.
func splitStorePath(s string) (dir string, p Path, err error) {
	slash := strings.LastIndexByte(s, '/')
	if slash <= 0 || s[0] != '/' {
		return "", "", fmt.Errorf("StorePath %s is not an absolute path such as /nix/store/<hash>-<name>", quote(s))
	}
	dir = s[:slash]
	if dir != "/nix/store" && !validStoreDir(dir) {
		return "", "", fmt.Errorf("StorePath %s is in a directory that cannot be a store: its parts must not be empty, . or .., nor hold control characters, ; or ,", quote(s))
	}
	if err := checkBase(s[slash+1:]); err != nil {
		return "", "", fmt.Errorf("StorePath %s: %w", quote(s), err)
	}
	return dir, Path(s[slash+1:]), nil
}

// validStoreDir takes any absolute directory in its shortest form. The
// characters that separate the parts of a fingerprint are refused, so that one
// fingerprint cannot be read as that of another path.
func validStoreDir(dir string) bool {
	for part := range strings.SplitSeq(dir[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return !hasControl(dir) && !strings.ContainsAny(dir, ";,")
}

func checkURL(s string) error {
	if s == "" {
		return errors.New("URL is empty")
	}
	if !only(s, inURL) {
		return fmt.Errorf("URL %s has a space, a control character or one outside ASCII; such are written %%20 and so on", quote(s))
	}
	return nil
}

func checkCompression(s string) error {
	if s == "" {
		return errors.New("the Compression is empty; a plain NAR is Compression: none")
	}
	if !only(s, inCompression) {
		return fmt.Errorf("the Compression %s is not a word of lower-case letters, digits and dashes", quote(s))
	}
	return nil
}

func hashField(key, s string) (Hash, error) {
	h, err := decodeHash(s)
	if err != nil {
		return Hash{}, fmt.Errorf("%s %s: %w", key, quote(s), err)
	}
	return h, nil
}

func sizeField(key, s string, least int64) (int64, error) {
	// ParseUint takes no sign; leading zeros would give one number two texts.
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || int64(n) < least || (s[0] == '0' && len(s) > 1) {
		return 0, fmt.Errorf("%s %s is not a whole number from %d to %d", key, quote(s), least, int64(math.MaxInt64))
	}
	return int64(n), nil
}

func splitReferences(s string) ([]Path, error) {
	if s == "" {
		return nil, nil
	}
	// A text of nothing but spaces must not reserve 16 bytes for each.
	most := min(strings.Count(s, " "), len(s)/(hashLen+2)) + 1
	refs := make([]Path, 0, most)
	for more := true; more; {
		var base string
		base, s, more = strings.Cut(s, " ")
		if base == "" {
			return nil, errors.New("the References have a space too many; one space stands between two names")
		}
		if err := checkBase(base); err != nil {
			return nil, fmt.Errorf("reference %d, %s: %w", len(refs)+1, quote(base), err)
		}
		refs = append(refs, Path(base))
	}
	return refs, nil
}

func derivation(s string) (Path, error) {
	if s == "unknown-deriver" {
		return "", nil
	}
	if err := checkBase(s); err != nil {
		return "", fmt.Errorf("the Deriver %s: %w", quote(s), err)
	}
	return Path(s), nil
}
