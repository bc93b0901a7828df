// Package narinfo reads and writes the small text that describes one store
// path in a Nix binary cache, and the names and hashes inside it.
//
// Append prints it byte for byte as NarInfo::to_string of Nix
// (src/libstore/nar-info.cc) does:
//
//	StorePath: /nix/store/n9i3ks80yqb6cvn0h1pkz1l8xqwdjbv4-hello
//	URL: nar/<file>
//	Compression: zstd
//	FileHash: sha256:<nix32>      only if known
//	FileSize: 260                 only if known
//	NarHash: sha256:<nix32>
//	NarSize: 576
//	References: <base name> …     the space stays when there are none
//	Deriver: <base name>          only if known
//	Sig: <key name>:<base64>      once for each signature
//	CA: fixed:r:sha256:<nix32>    only for content-addressed paths
//
// Whatever a cache stores is read for years by clients of every version, so Parse
// refuses what any of them would: one malformed Sig makes Nix 2.34 refuse a whole
// document, an empty Compression is bzip2 to old ones. Keys it does not know are
// dropped. The message is one line shorter than 512 bytes and names the line, because
// `nix copy` shows it to a person and shows nothing of 1024 bytes or more.
//
// Where Nix writes one thing in several ways, Parse takes them and Append
// prints one, so that Parse(Append(i)) equals i for every Info that keeps the
// invariants stated at its fields. Parse says nothing about whether the document is true.
//
// AppendFingerprint makes the text that signatures sign (ValidPathInfo::
// fingerprint in src/libstore/path-info.cc): store path, NarHash, NarSize and
// References, and nothing else.
package narinfo
