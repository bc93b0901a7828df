package local

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"narwharf/cache/nixstore"
	"narwharf/cache/nixstore/realised"
	"narwharf/narinfo"
)

// The small files that uploaders put beside a path, as Nix would write them, made of what
// the store knows.

// Realisation is the text of realisations/<id>.doi, for Nix before 2.35: where an output
// of a content-addressed derivation is.
func (s *Store) Realisation(ctx context.Context, id string) ([]byte, error) {
	drv, output, _ := strings.Cut(id, "!")
	r, err := realised.Realisation(ctx, s, drv, output)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return json.Marshal(struct {
		Dependent  map[string]narinfo.Path `json:"dependentRealisations"`
		ID         string                  `json:"id"`
		OutPath    narinfo.Path            `json:"outPath"`
		Signatures []string                `json:"signatures"`
	}{r.Dependent, id, r.Path, append([]string{}, r.Signatures...)})
}

// BuildTrace is the text of build-trace-v2/<key>.doi, the same for Nix 2.35 and later.
func (s *Store) BuildTrace(ctx context.Context, key string) ([]byte, error) {
	drv, output, _ := strings.Cut(key, "/")
	r, err := realised.BuildTrace(ctx, s, drv, output)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	type signature struct {
		KeyName string `json:"keyName"`
		Sig     string `json:"sig"`
	}
	sigs := []signature{}
	for _, text := range r.Signatures {
		if name, sig, ok := strings.Cut(text, ":"); ok {
			sigs = append(sigs, signature{name, sig})
		}
	}
	return json.Marshal(struct {
		OutPath    narinfo.Path `json:"outPath"`
		Signatures []signature  `json:"signatures"`
	}{r.Path, sigs})
}

// buildIDs is where debug information lies in a path (BinaryCacheStore::addToStoreCommon
// in src/libstore/binary-cache-store.cc).
const buildIDs = "lib/debug/.build-id"

// debugPaths are the paths that had debug information when they became valid.
type debugPaths struct {
	mu    sync.Mutex
	last  int64 // number of the last path that was looked at
	paths []narinfo.Path
}

// update looks at what became valid since.
func (d *debugPaths) update(ctx context.Context, s *Store) ([]narinfo.Path, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh, last, err := realised.PathsSince(ctx, s, d.last, false)
	if err != nil {
		return nil, err
	}
	if last < d.last { // of another database
		d.paths = nil
	}
	for _, p := range fresh {
		if _, st, err := lstat(s.RealPath(p), buildIDs); err == nil && st.IsDir() {
			d.paths = append(d.paths, p)
		}
	}
	d.last = last
	return slices.Clip(d.paths), nil
}

// Debuginfo is the text of debuginfo/<build id>.debug: the NAR and the file in it that have
// the debug information of a build.
func (s *Store) Debuginfo(ctx context.Context, id string) ([]byte, error) {
	id = strings.TrimSuffix(id, ".debug")
	member := buildIDs + "/" + id[:2] + "/" + id[2:] + ".debug"
	paths, err := s.debug.update(ctx, s)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	for _, p := range paths {
		if _, st, err := lstat(s.RealPath(p), member); err != nil || !st.Mode().IsRegular() {
			continue
		}
		i, err := s.InfoByHash(ctx, p.Hash())
		if errors.Is(err, nixstore.ErrNotValid) { // its files are being deleted
			continue
		}
		if err != nil {
			return nil, s.explain(ctx, err)
		}
		return json.Marshal(struct {
			Archive string `json:"archive"`
			Member  string `json:"member"`
		}{"../" + URL(i), member})
	}
	return nil, fs.ErrNotExist
}
