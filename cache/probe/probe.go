// Package probe is one store path that every Narwharf cache has without anybody uploading it.
// A client that substitutes it has proved name, proxy, password, key and signature at once,
// and needs to know nothing of what else the cache holds.
//
// The path is the same everywhere, and never changes: it is a file with a line of text. It has
// no content address, so that Nix takes it for its signature alone. It is in no index: nothing
// can delete, upload or promote it. See docs/design/054-probe.md.
//
// Beside it, a request may have the header [Header]: the answer repeats its value. An answer with
// the value of another request was kept by something in between.
package probe

import (
	"crypto/sha256"
	"net/http"
	"regexp"

	"narwharf/cache/nar"
	"narwharf/narinfo"
)

// Hash is the hash part of the path. All its letters are digits of nix32.
const Hash = "narwharfnarwharfnarwharfnarwharf"

// Header is what a request asks, and its answer repeats.
const Header = "Narwharf-Probe"

const (
	base = Hash + "-probe"
	text = "Every Narwharf cache has this path, for clients to find out whether they get at it.\n"
)

// NAR is the path in the NAR format: a file.
var NAR = archive(text)

var sum = narinfo.Hash(sha256.Sum256(NAR))

// File is the name of the NAR below nar/.
var File = sum.Base32() + ".nar"

// Info is the narinfo, which nobody has signed yet.
func Info(storeDir string) *narinfo.Info {
	return &narinfo.Info{
		StoreDir: storeDir, Path: narinfo.Path(base), URL: "nar/" + File, Compression: "none",
		FileHash: sum, FileSize: int64(len(NAR)), NarHash: sum, NarSize: int64(len(NAR)),
	}
}

// archive is a NAR whose root is a file.
func archive(contents string) (text []byte) {
	for _, s := range []string{"nix-archive-1", "(", "type", "regular", "contents", contents, ")"} {
		text = nar.AppendString(text, s)
	}
	return text
}

var value = regexp.MustCompile(`^[0-9a-z]{1,32}$`)

// Answer repeats what a request asked.
func Answer(h http.Header, req *http.Request) {
	if asked := req.Header.Get(Header); value.MatchString(asked) {
		h.Set(Header, asked)
	}
}
