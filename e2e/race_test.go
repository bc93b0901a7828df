package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
)

// together runs n functions at once.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// Several uploaders of one path at once with the same bytes: all succeed.
func TestSamePathAtOnce(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	for round := range 5 {
		p := NewPath("same", RandomNAR(uint64(100+round), 400_000))
		together(4, func(int) {
			u := NewUploader(t, s.URL(), token)
			doc, file := u.Describe(p)
			for _, r := range []Reply{u.PutNAR(doc, file), u.PutDoc(p.Hash(), doc.String())} {
				if !r.OK() {
					t.Error(r)
				}
			}
		})
		NewUploader(t, s.URL(), "").Fetch(p)
	}
}

// With different compressions, all succeed too; what is served is one whole of them.
func TestSamePathOtherCompression(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	methods := []string{"none", "zstd", "gzip"}
	for round := range 5 {
		p := NewPath("packed", RandomNAR(uint64(200+round), 300_000))
		together(len(methods), func(i int) {
			u := NewUploader(t, s.URL(), token)
			u.Compression = methods[i]
			doc, file := u.Describe(p)
			doc.Sigs = []string{NewKey(fmt.Sprintf("packer-%d", i)).Sign(doc.Fingerprint())}
			for _, r := range []Reply{u.PutNAR(doc, file), u.PutDoc(p.Hash(), doc.String())} {
				if !r.OK() {
					t.Error(r)
				}
			}
		})
		doc := NewUploader(t, s.URL(), "").Fetch(p)
		if len(doc.Sigs) != len(methods)+1 {
			t.Errorf("%d signatures, want those of %d uploaders and the server's\n%v", len(doc.Sigs), len(methods), doc)
		}
	}
}

// With different fingerprints exactly one wins; the others are told so, and the winner stays.
func TestSamePathOtherFingerprint(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	for round := range 10 {
		base := NewPath("contested", nil)
		var mu sync.Mutex
		var winners []*Path
		together(4, func(i int) {
			p := *base
			p.NAR = RandomNAR(uint64(1000+10*round+i), 20_000)
			u := NewUploader(t, s.URL(), token)
			doc, file := u.Describe(&p)
			if r := u.PutNAR(doc, file); !r.OK() {
				t.Error(r)
			}
			switch r := u.PutDoc(p.Hash(), doc.String()); {
			case r.OK():
				mu.Lock()
				winners = append(winners, &p)
				mu.Unlock()
			case r.Status != http.StatusConflict:
				t.Errorf("%v: want 409", r)
			}
		})
		if len(winners) != 1 {
			t.Fatalf("%d uploads of other content for one path were accepted, want 1", len(winners))
		}
		NewUploader(t, s.URL(), "").Fetch(winners[0])
	}
}

// Signatures by many at once: none is lost.
func TestSignaturesAtOnce(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	p := NewPath("signed", RandomNAR(300, 1000))
	u := NewUploader(t, s.URL(), token)
	u.Upload(p)
	doc, _ := u.Describe(p)
	keys := make([]Key, 12)
	together(len(keys), func(i int) {
		keys[i] = NewKey(fmt.Sprintf("signer-%d", i))
		mine := doc
		mine.Sigs = []string{keys[i].Sign(doc.Fingerprint())}
		if r := NewUploader(t, s.URL(), token).PutDoc(p.Hash(), mine.String()); !r.OK() {
			t.Error(r)
		}
	})
	got := u.Fetch(p)
	for _, k := range keys {
		if got.SignedBy(k) != 1 {
			t.Errorf("the signature by %s is lost", k.Name)
		}
	}
	// There is an end to it.
	refused := false
	for i := range 8 {
		more := doc
		more.Sigs = []string{NewKey(fmt.Sprintf("late-%d", i)).Sign(doc.Fingerprint())}
		r := u.PutDoc(p.Hash(), more.String())
		if !r.OK() {
			refused = true
			checkRefusalText(t, r, "16|signatures")
			if !finalStatuses[r.Status] {
				t.Error(r)
			}
		}
	}
	stored := u.Fetch(p)
	if n := len(stored.Sigs); n > 17 {
		t.Errorf("%d signatures are kept (refused: %v)", n, refused)
	}
}

// Two real clients that copy the same closure at the same time.
func TestTwoClientsAtOnce(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	suites := Suites()
	closures := make([]*Closures, len(suites))
	for i, suite := range suites {
		closures[i] = NeedClosures(t, suite)
	}
	clients := make([]*Nix, len(suites))
	for i, suite := range suites {
		clients[i] = NewNix(t, suite).In(closures[i].Root).Netrc(token)
	}
	outs := make([]Output, len(suites))
	together(len(suites), func(i int) {
		outs[i] = clients[i].Run("nix", "copy", "--to", s.URL()+"?compression=zstd", closures[i].Path("wide"), closures[i].Path("a"))
	})
	for _, out := range outs {
		if out.Code != 0 {
			t.Errorf("%v", out)
		}
	}
	down := NewNix(t, newest()).Trust(s.URL(), s.Key)
	down.Must("nix-store", "--realise", closures[0].Path("wide"), closures[0].Path("a"))
	down.Verify()
}

// Readers while somebody writes see a path whole or not at all.
func TestReadWhileWriting(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	paths := make([]*Path, 30)
	for i := range paths {
		paths[i] = NewPath("stream", RandomNAR(uint64(400+i), 50_000))
	}
	reader := NewUploader(t, s.URL(), "")
	seen := 0
	stop := background(t, func() {
		for _, p := range paths {
			info, err := reader.Try("GET", "/"+p.Hash()+".narinfo", "", nil)
			if err != nil || info.Status == http.StatusNotFound {
				continue
			}
			doc := ParseDoc(t, info.Body)
			file, err := reader.Try("GET", "/"+doc.URL, "", nil)
			if err != nil || file.Status != 200 || nixHash([]byte(file.Body)) != doc.FileHash {
				t.Errorf("the NAR of a narinfo that is served: %d %v", file.Status, err)
			}
			seen++
		}
	})
	writer := NewUploader(t, s.URL(), token)
	for _, p := range paths {
		writer.Upload(p)
	}
	stop()
	if seen == 0 {
		t.Error("the reader saw nothing")
	}
}
