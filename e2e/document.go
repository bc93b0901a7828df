package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/pierrec/lz4/v4"
)

// A Path is a store path to upload. Its hash part is made up: a cache cannot recompute it.
type Path struct {
	Base string // "<32>-<name>"
	NAR  []byte
	Refs []*Path // may hold the path itself
}

var pathCount atomic.Uint64

// NewPath makes a path of a fresh hash.
func NewPath(name string, nar []byte, refs ...*Path) *Path {
	seed := sha256.Sum256(fmt.Appendf(nil, "%d %s %x", pathCount.Add(1), name, noise(uint64(len(nar)), 8)))
	return &Path{Base: nixbase32.EncodeToString(seed[:20]) + "-" + name, NAR: nar, Refs: refs}
}

// Hash is the 32 digits that address the narinfo.
func (p *Path) Hash() string { return p.Base[:32] }

// A Doc is a narinfo whose every value can be a lie.
type Doc struct {
	StorePath, URL, Compression string
	FileHash, FileSize          string
	NarHash, NarSize            string
	References                  string
	Deriver                     string
	Sigs                        []string
	CA                          string
	Extra                       string // text put at the end as it is
}

// String prints the document as Nix does. Empty values are left out but for References.
func (d Doc) String() string {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			b.WriteString(key + ": " + value + "\n")
		}
	}
	line("StorePath", d.StorePath)
	line("URL", d.URL)
	line("Compression", d.Compression)
	line("FileHash", d.FileHash)
	line("FileSize", d.FileSize)
	line("NarHash", d.NarHash)
	line("NarSize", d.NarSize)
	b.WriteString("References: " + d.References + "\n")
	line("Deriver", d.Deriver)
	for _, s := range d.Sigs {
		line("Sig", s)
	}
	line("CA", d.CA)
	return b.String() + d.Extra
}

// ParseDoc reads a narinfo as the server prints it; an unexpected line fails the test.
func ParseDoc(t testing.TB, text string) Doc {
	t.Helper()
	var d Doc
	fields := map[string]*string{
		"StorePath": &d.StorePath, "URL": &d.URL, "Compression": &d.Compression, "FileHash": &d.FileHash, "FileSize": &d.FileSize,
		"NarHash": &d.NarHash, "NarSize": &d.NarSize, "References": &d.References, "Deriver": &d.Deriver, "CA": &d.CA,
	}
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("a narinfo without a newline at its end: %q", text)
	}
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		key, value, ok := strings.Cut(line, ": ")
		switch {
		case ok && key == "Sig":
			d.Sigs = append(d.Sigs, value)
		case ok && fields[key] != nil && *fields[key] == "":
			*fields[key] = value
		default:
			t.Errorf("unexpected line %q in the narinfo\n%s", line, text)
		}
	}
	return d
}

// Fingerprint is the text that signatures sign.
func (d Doc) Fingerprint() string {
	dir := d.StorePath[:strings.LastIndexByte(d.StorePath, '/')+1]
	refs := strings.Fields(d.References)
	slices.Sort(refs)
	for i, r := range refs {
		refs[i] = dir + r
	}
	return fmt.Sprintf("1;%s;%s;%s;%s", d.StorePath, d.NarHash, d.NarSize, strings.Join(refs, ","))
}

// SignedBy counts the signatures of a key.
func (d Doc) SignedBy(k Key) int {
	n := 0
	for _, s := range d.Sigs {
		if k.Signed(d.Fingerprint(), s) {
			n++
		}
	}
	return n
}

// nixHash is "sha256:<nix base 32>".
func nixHash(b []byte) string { return "sha256:" + nixDigest(b) }

func nixDigest(b []byte) string {
	sum := sha256.Sum256(b)
	return nixbase32.EncodeToString(sum[:])
}

// Describe makes the file of a path and its true narinfo, as Nix would.
func Describe(t testing.TB, p *Path, storeDir, compression string) (Doc, []byte) {
	t.Helper()
	file := compress(t, compression, p.NAR)
	var refs []string
	for _, r := range p.Refs {
		refs = append(refs, r.Base)
	}
	slices.Sort(refs)
	return Doc{
		StorePath: storeDir + "/" + p.Base, URL: "nar/" + nixDigest(file) + ".nar" + suffixes[compression],
		Compression: compression, FileHash: nixHash(file), FileSize: strconv.Itoa(len(file)),
		NarHash: nixHash(p.NAR), NarSize: strconv.Itoa(len(p.NAR)), References: strings.Join(refs, " "),
	}, file
}

// suffixes are those Nix gives a NAR's URL: gzip has none.
var suffixes = map[string]string{
	"none": "", "zstd": ".zst", "xz": ".xz", "bzip2": ".bz2", "gzip": "", "br": ".br", "lz4": ".lz4",
}

// frameSize is that of the zstd frames of Nix 2.35 and later.
const frameSize = 16 << 20

// compress encodes data in one of Nix's compressions.
func compress(t testing.TB, method string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch method {
	case "none":
		return data
	case "zstd":
		return zstdFrames(data)
	case "gzip":
		w := gzip.NewWriter(&b)
		_, err = w.Write(data)
		_ = w.Close()
	case "br":
		w := brotli.NewWriter(&b)
		_, err = w.Write(data)
		_ = w.Close()
	case "lz4":
		w := lz4.NewWriter(&b)
		_, err = w.Write(data)
		_ = w.Close()
	case "xz", "bzip2": // no encoder in Go: the programs
		needTool(t, method, map[string]string{"xz": "xz-utils", "bzip2": "bzip2"}[method])
		cmd := exec.Command(method, "-c")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(data), &b
		err = cmd.Run()
	default:
		t.Fatalf("no compression %q", method)
	}
	if err != nil {
		t.Fatalf("compress with %s: %v", method, err)
	}
	return b.Bytes()
}

var zstdEncoder, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))

func zstdFrames(data []byte) []byte {
	out := []byte{}
	for first := true; first || len(data) > 0; first = false {
		n := min(len(data), frameSize)
		out = zstdEncoder.EncodeAll(data[:n], out)
		data = data[n:]
	}
	return out
}

func itoa(n int) string { return strconv.Itoa(n) }

func hexDigest(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
