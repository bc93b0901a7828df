package cache

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"narwharf/cache/index"
	"narwharf/cache/signed"
	"narwharf/cache/upload"
	"narwharf/cache/upload/recovery"
	"narwharf/narinfo"
	"narwharf/signing"
)

// signatures makes n well-formed signatures by keys that nobody has.
func signatures(t testing.TB, n int) (sigs []string) {
	t.Helper()
	for i := range n {
		sigs = append(sigs, fmt.Sprintf("key-%02d:%s", i, base64.StdEncoding.EncodeToString(make([]byte, 64))))
	}
	slices.Sort(sigs)
	return sigs
}

func newKey(t testing.TB, name string) signing.SecretKey {
	t.Helper()
	k, err := signing.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keyring is what LoadKeys reads; a test may change it at any time.
type keyring struct {
	mu   sync.Mutex
	keys []signing.SecretKey
	err  error
}

func (k *keyring) set(keys ...signing.SecretKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = keys
}

func (k *keyring) load() ([]signing.SecretKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys, k.err
}

// signers returns the names of the keys that signed what is served, after
// checking those that are known.
func (w *world) signers(p *testPath, known ...signing.SecretKey) (names []string) {
	w.t.Helper()
	a := w.must(w.get(p.infoURL()), 200)
	info, err := narinfo.Parse([]byte(a.body))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, sig := range info.Sigs {
		name, _, _ := strings.Cut(sig, ":")
		names = append(names, name)
		var public []signing.PublicKey
		for _, k := range known {
			if k.Name() == name {
				public = append(public, k.Public())
			}
		}
		if _, ok := signing.VerifyAny(info.AppendFingerprint(nil), []string{sig}, public); len(public) > 0 && !ok {
			w.t.Errorf("a signature by %s is wrong", name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestSigningOnRead(t *testing.T) {
	k1, k2, k3 := newKey(t, "cache-1"), newKey(t, "cache-2"), newKey(t, "cache-3")
	ring := &keyring{keys: []signing.SecretKey{k1, k2}}
	w := newWorld(t, func(s *setup) { s.keys = ring.load })
	p, q := newUpload(t, "p", "none"), newUpload(t, "q", "none")
	q.info.Sigs = signatures(t, 1)
	w.putAll(p, q)
	want := func(names ...string) {
		t.Helper()
		if got := w.signers(p, k1, k2, k3); !slices.Equal(got, names) {
			t.Errorf("p is signed by %q, want %q", got, names)
		}
		names = append(slices.Clone(names), "key-00") // came with the path, and stays
		if got := w.signers(q, k1, k2, k3); !slices.Equal(got, names) {
			t.Errorf("q is signed by %q, want %q", got, names)
		}
	}
	want("cache-1", "cache-2")
	etag := w.get(p.infoURL()).header.Get("Etag")
	if a := w.get("/pubkey"); a.body != k1.Public().String()+"\n"+k2.Public().String()+"\n" {
		t.Errorf("/pubkey is %q", a.body)
	}

	// Rotation: new keys from the next request on, nothing stored.
	ring.set(k2, k3)
	want("cache-1", "cache-2")
	if err := w.setup.Cache.Signer.Reload(); err != nil {
		t.Fatal(err)
	}
	want("cache-2", "cache-3")
	if a := w.must(w.get(p.infoURL(), "If-None-Match", etag), 200); a.header.Get("Etag") == etag {
		t.Error("the ETag stayed")
	}
	ring.mu.Lock()
	ring.err = errors.New("no such file")
	ring.mu.Unlock()
	if err := w.setup.Cache.Signer.Reload(); err == nil {
		t.Error("Reload without keys passed")
	}
	want("cache-2", "cache-3") // the old ones stay in use
	r, err := w.index.Get(p.info.Path.Hash())
	if err != nil || len(r.Info.Sigs) != 0 {
		t.Errorf("our own signatures were stored: %v, %v", r.Info.Sigs, err)
	}
	w.check()
}

func TestSignUploadsFalse(t *testing.T) {
	key := newKey(t, "cache-1")
	w := newWorld(t, func(s *setup) {
		s.signUploads = false
		s.keys = (&keyring{keys: []signing.SecretKey{key}}).load
	})
	p := newUpload(t, "p", "none")
	p.info.Sigs = signatures(t, 1)
	w.putAll(p)
	if got := w.signers(p); !slices.Equal(got, []string{"key-00"}) {
		t.Errorf("signed by %q, want key-00 alone", got)
	}
	if a := w.get("/pubkey"); a.body != key.Public().String()+"\n" {
		t.Errorf("/pubkey is %q", a.body)
	}
}

// A signed text is kept until the path, the keys or the index changes.
func TestSignedTextsAreDropped(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	w.get(p.infoURL())
	kept := func() bool { return inMemory(w.s.Cache.Signer, p.info.Path.Hash()) }
	if !kept() {
		t.Fatal("not kept after a read")
	}
	sigs := signatures(t, 2)
	w.must(w.put(p.infoURL(), p.edited(func(i *narinfo.Info) { i.Sigs = sigs[:1] })), 201)
	if got := w.signers(p); !slices.Equal(got, []string{"key-00"}) {
		t.Errorf("signed by %q after a merge", got)
	}
	if _, err := recovery.Rebuild(t.Context(), w.u, func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	if kept() {
		t.Error("kept over a rebuild")
	}
	w.get(p.infoURL())
	if err := w.setup.Cache.Signer.Reload(); err != nil {
		t.Fatal(err)
	}
	if kept() {
		t.Error("kept over a reload of the keys")
	}
	// A text of unusual size is not kept at all.
	big := newUpload(t, "big", "none")
	w.must(w.put(big.narURL(), big.body), 201)
	for i := range 300 {
		big.info.References = append(big.info.References, pathNamed(fmt.Sprint("reference-with-a-long-name-", i)))
	}
	slices.Sort(big.info.References)
	w.u.AllowIncomplete = true
	w.must(w.put(big.infoURL(), big.text()), 201)
	w.get(big.infoURL())
	if inMemory(w.s.Cache.Signer, big.info.Path.Hash()) {
		t.Errorf("a text of %d bytes is kept", len(big.text()))
	}
}

// gateIndex lets a test hold a Get between reading the record and returning it.
type gateIndex struct {
	index.Index
	got, proceed chan struct{}
}

func (g *gateIndex) Get(hash string) (*index.Record, error) {
	r, err := g.Index.Get(hash)
	if g.got != nil {
		g.got <- struct{}{}
		<-g.proceed
	}
	return r, err
}

// A text that was begun before a change must not be kept after it.
func TestSignerRace(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "none")
	w.putAll(p)
	hash := p.info.Path.Hash()
	for name, change := range map[string]func(){
		"path": func() { w.s.Cache.Signer.Forget(hash) },
		"keys": func() {
			w.setup.keys = func() ([]signing.SecretKey, error) { return []signing.SecretKey{newKey(t, "new")}, nil }
			if err := w.s.Cache.Signer.Reload(); err != nil {
				t.Error(err)
			}
		},
		"all": func() { w.s.Cache.Signer.Forget("") },
	} {
		slow := &gateIndex{w.index, make(chan struct{}), make(chan struct{})}
		done := make(chan error)
		w.s.Cache.Signer.Forget(hash)
		go func() {
			_, err := w.s.Cache.Signer.Get(t.Context(), hash, slow)
			done <- err
		}()
		<-slow.got
		change()
		slow.proceed <- struct{}{}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if inMemory(w.s.Cache.Signer, hash) {
			t.Errorf("%s: a text from before the change was kept", name)
		}
	}
}

// Readers beside writers: once an upload is answered nobody sees what was
// before it. Run with -race.
func TestSignerNeverShowsWhatIsPast(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "none")
	w.putAll(p)
	hash := p.info.Path.Hash()
	sigs := signatures(t, upload.MaxSignatures)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := w.s.Cache.Signer.Get(t.Context(), hash, w.index); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range sigs {
		info := p.info.Clone()
		info.Sigs = sigs[i : i+1]
		if err := w.u.PutInfo(hash, info, "ci"); err != nil {
			t.Error(err)
		}
		for range 20 {
			text, err := w.s.Cache.Signer.Get(t.Context(), hash, w.index)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := narinfo.Parse(text.Text); len(got.Sigs) != i+1 {
				t.Errorf("%d signatures are seen after %d were taken in", len(got.Sigs), i+1)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// inMemory tells whether the text of an uploaded path is there already.
func inMemory(s *signed.Signer, hash string) bool {
	t, _ := s.Known(hash)
	return t != nil
}
