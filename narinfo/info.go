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
	dst = append(dst, "StorePath: "...)
	dst = append(dst, i.StoreDir...)
	dst = append(dst, '/')
	dst = append(dst, i.Path...)
	dst = append(dst, "\nURL: "...)
	dst = append(dst, i.URL...)
	dst = append(dst, "\nCompression: "...)
	dst = append(dst, i.Compression...)
	if !i.FileHash.IsZero() {
		dst = append(dst, "\nFileHash: "...)
		dst = i.FileHash.append(dst)
	}
	if i.FileSize != 0 {
		dst = append(dst, "\nFileSize: "...)
		dst = strconv.AppendInt(dst, i.FileSize, 10)
	}
	dst = append(dst, "\nNarHash: "...)
	dst = i.NarHash.append(dst)
	dst = append(dst, "\nNarSize: "...)
	dst = strconv.AppendInt(dst, i.NarSize, 10)
	dst = append(dst, "\nReferences:"...)
	for _, r := range sorted(i.References) {
		dst = append(dst, ' ')
		dst = append(dst, r...)
	}
	if len(i.References) == 0 {
		dst = append(dst, ' ')
	}
	if i.Deriver != "" {
		dst = append(dst, "\nDeriver: "...)
		dst = append(dst, i.Deriver...)
	}
	for _, s := range sorted(i.Sigs) {
		dst = append(dst, "\nSig: "...)
		dst = append(dst, s...)
	}
	if i.CA != "" {
		dst = append(dst, "\nCA: "...)
		dst = append(dst, i.CA...)
	}
	return append(dst, '\n')
}

// AppendFingerprint appends the text that signatures of the path sign:
//
//	1;<full path>;sha256:<nix32>;<NarSize>;<full reference>,<full reference>…
//
// References are in order of their names, as Nix's are, whatever order they
// have in i.
func (i *Info) AppendFingerprint(dst []byte) []byte {
	n := len("1;/;;20 digits of size;") + len(i.StoreDir) + len(i.Path) + len(hashPrefix) + base32Len
	for _, r := range i.References {
		n += len(i.StoreDir) + len(r) + 2
	}
	dst = slices.Grow(dst, n)
	dst = append(dst, "1;"...)
	dst = append(dst, i.StoreDir...)
	dst = append(dst, '/')
	dst = append(dst, i.Path...)
	dst = append(dst, ';')
	dst = i.NarHash.append(dst)
	dst = append(dst, ';')
	dst = strconv.AppendInt(dst, i.NarSize, 10)
	dst = append(dst, ';')
	for n, r := range sorted(i.References) {
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, i.StoreDir...)
		dst = append(dst, '/')
		dst = append(dst, r...)
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
	const keys = len("StorePath: /\nURL: \nCompression: \nFileHash: \nFileSize: \nNarHash: \nNarSize: \nReferences: \nDeriver: \nCA: \n")
	n := keys + 2*(len(hashPrefix)+base32Len) + 2*20 +
		len(i.StoreDir) + len(i.Path) + len(i.URL) + len(i.Compression) + len(i.Deriver) + len(i.CA)
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
