package e2e

import (
	"fmt"
	"testing"
)

// The order of Nix 2.35 and later: all NARs and listings first, the biggest first and several at
// once, zstd in frames of 16 MiB; then the narinfos, references first.
func TestNewerUploadOrder(t *testing.T) {
	t.Parallel()
	for _, compression := range []string{"zstd", "none", "gzip", "xz", "bzip2"} {
		if testing.Short() && compression != "zstd" {
			continue
		}
		t.Run(compression, func(t *testing.T) {
			s := NewServer(t, nil)
			u := NewUploader(t, s.URL(), s.Token("ci", "push"))
			u.Compression = compression
			size := 40 << 20 // three frames
			if compression != "zstd" || testing.Short() {
				size = 1 << 20
			}
			bottom := NewPath("bottom", RandomNAR(500, 3000))
			big := NewPath("big", RandomNAR(501, size), bottom)
			paths := []*Path{big, bottom}
			for i := range 40 {
				paths = append(paths, NewPath(fmt.Sprintf("part-%d", i), RandomNAR(uint64(510+i), 1000*i), bottom, paths[i]))
			}
			top := NewPath("top", RandomNAR(502, 100), paths...)
			top.Refs = append(top.Refs, top)
			paths = append(paths, top)
			u.Upload(paths...)
			s.Fsck()
			for _, p := range paths {
				if doc := u.Fetch(p); doc.SignedBy(s.Key) != 1 {
					t.Errorf("%s is not signed", p.Base)
				}
			}
			u.Upload(paths...) // again: all are there
		})
	}
}

// A narinfo before what it refers to is refused and, after that, accepted.
func TestOrderMatters(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	below := NewPath("below", RandomNAR(600, 100))
	above := NewPath("above", RandomNAR(601, 100), below)
	doc, file := st.Describe(above)
	if r := st.PutNAR(doc, file); !r.OK() {
		t.Fatal(r)
	}
	before := st.server.Files()
	st.refused(st.PutDoc(above.Hash(), doc.String()), before, below.Base, 422)
	st.Upload(below)
	st.Upload(above)
	st.Fetch(above)
}
