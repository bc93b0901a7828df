package narinfo

import (
	"slices"
	"strconv"
)

// Info is one narinfo. Parse keeps the invariants stated here; who fills an
// Info by hand has to.
//
// The strings of an Info that came from Parse are parts of one copy of the
// text: use strings.Clone on what outlives the Info by far.
type Info struct {
	StoreDir    string // absolute, without a trailing slash: "/nix/store"
	Path        Path
	URL         string // relative to the cache's base URL, or absolute
	Compression string // never empty; "none" for a plain NAR
	FileHash    Hash   // of the file at URL; zero if not known
	FileSize    int64  // bytes at URL; 0 if not known
	NarHash     Hash
	NarSize     int64    // bytes, at least 1
	References  []Path   // sorted, unique, may hold Path itself; nil if none
	Deriver     Path     // empty if not known
	CA          string   // content address, empty if there is none
	Sigs        []string // "name:base64 of 64 bytes", sorted, unique; nil if none
}

// Append appends the normalised text of i to dst. References or signatures
// that are not sorted and unique are printed as if they were; nothing else is
// checked.
func (i *Info) Append(dst []byte) []byte {
	dst = slices.Grow(dst, i.textLen())
	dst = put(dst, "StorePath: ", i.StoreDir, "/", string(i.Path), "\nURL: ", i.URL, "\nCompression: ", i.Compression)
	if !i.FileHash.IsZero() {
		dst = i.FileHash.append(put(dst, "\nFileHash: "))
	}
	if i.FileSize != 0 {
		dst = strconv.AppendInt(put(dst, "\nFileSize: "), i.FileSize, 10)
	}
	dst = i.NarHash.append(put(dst, "\nNarHash: "))
	dst = strconv.AppendInt(put(dst, "\nNarSize: "), i.NarSize, 10)
	dst = put(dst, "\nReferences:")
	for _, r := range sorted(i.References) {
		dst = put(dst, " ", string(r))
	}
	if len(i.References) == 0 {
		dst = put(dst, " ")
	}
	if i.Deriver != "" {
		dst = put(dst, "\nDeriver: ", string(i.Deriver))
	}
	for _, s := range sorted(i.Sigs) {
		dst = put(dst, "\nSig: ", s)
	}
	if i.CA != "" {
		dst = put(dst, "\nCA: ", i.CA)
	}
	return put(dst, "\n")
}

func put(dst []byte, parts ...string) []byte {
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}

// AppendFingerprint appends the text that signatures of the path sign:
//
//	1;<full path>;sha256:<nix32>;<NarSize>;<full reference>,<full reference>…
//
// References are in order of their names, as Nix's are, whatever order they
// have in i.
func (i *Info) AppendFingerprint(dst []byte) []byte {
	dst = slices.Grow(dst, i.textLen()+len(i.References)*(len(i.StoreDir)+1))
	dst = i.NarHash.append(put(dst, "1;", i.StoreDir, "/", string(i.Path), ";"))
	dst = append(strconv.AppendInt(append(dst, ';'), i.NarSize, 10), ';')
	for n, r := range sorted(i.References) {
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = put(dst, i.StoreDir, "/", string(r))
	}
	return dst
}

// Clone is a copy that shares no slice with i.
func (i *Info) Clone() *Info {
	c := *i
	c.References = slices.Clone(i.References)
	c.Sigs = slices.Clone(i.Sigs)
	return &c
}

// textLen is at least the length of the text.
func (i *Info) textLen() int {
	n := 320 + len(i.StoreDir) + len(i.Path) + len(i.URL) + len(i.Compression) + len(i.Deriver) + len(i.CA) // 320: keys, hashes, sizes
	for _, r := range i.References {
		n += len(r) + 1
	}
	for _, s := range i.Sigs {
		n += len(s) + len("Sig: \n")
	}
	return n
}

// sorted returns s if it is strictly ascending and a sorted copy without
// doubles if not. An unsorted list would make a fingerprint that no other
// program agrees with, and looking costs next to nothing.
func sorted[S ~[]E, E ~string](s S) S {
	for i := 1; i < len(s); i++ {
		if s[i-1] >= s[i] {
			s = slices.Clone(s)
			slices.Sort(s)
			return slices.Compact(s)
		}
	}
	return s
}
