package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"narwharf/cache/nar/dump"
	"narwharf/narinfo"
	"narwharf/signing"
)

const (
	storeDir   = "/nix/store"
	hostSystem = "x86_64-linux"
)

// A system is what a release has for a target.
type system struct {
	path, kernel string
	infos        []*narinfo.Info // its closure
	manifest     *signing.Manifest
}

// A builder makes store paths and uploads what the cache lacks.
type builder struct {
	dir   string // for files while they are packed
	url   string
	known map[narinfo.Path]*narinfo.Info // uploaded
	zstd  *zstd.Encoder
}

func newBuilder(dir, url string) (*builder, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	return &builder{dir: dir, url: url, known: map[narinfo.Path]*narinfo.Info{}, zstd: z}, err
}

// system builds and uploads, as whoever has the token.
func (b *builder) system(ctx context.Context, token, channel, label string, v versions) (*system, error) {
	s := &system{}
	at, refs := map[string]string{}, []narinfo.Path{}
	add := func(name string, refs []narinfo.Path, files map[string]file) (narinfo.Path, error) {
		info, err := b.add(ctx, token, name, refs, files)
		if err != nil {
			return "", fmt.Errorf("upload %s: %w", name, err)
		}
		s.infos = append(s.infos, info)
		return info.Path, nil
	}
	for _, r := range recipes(channel) {
		var needs []narinfo.Path
		for _, name := range r.needs {
			needs = append(needs, narinfo.Path(filepath.Base(at[name])))
		}
		path, err := add(r.name+"-"+v[r.name], needs, r.files(v[r.name]))
		if err != nil {
			return nil, err
		}
		at[r.name], refs = path.In(storeDir), append(refs, path)
	}
	path, err := add("nixos-system-"+channel+"-"+label, refs, systemFiles(channel, label, at))
	if err != nil {
		return nil, err
	}
	s.path, s.kernel = path.In(storeDir), at["linux"]
	s.manifest, err = signing.NewManifest(s.infos)
	return s, err
}

// add makes a store path of a name, whose hash is that of all it is made of, and uploads it unless
// that was done.
func (b *builder) add(ctx context.Context, token, name string, refs []narinfo.Path, files map[string]file) (*narinfo.Info, error) {
	hash := narinfo.Hash(sha256.Sum256(fmt.Appendf(nil, "%s %v %v", name, refs, files)))
	path, err := narinfo.ParseBase(hash.Base32()[:32] + "-" + name)
	if err != nil || b.known[path] != nil {
		return b.known[path], err
	}
	nar, err := b.pack(ctx, hash, files)
	if err != nil {
		return nil, err
	}
	packed := b.zstd.EncodeAll(nar, nil)
	text := (&narinfo.Info{
		StoreDir: storeDir, Path: path, Compression: "zstd", FileHash: sha256.Sum256(packed), FileSize: int64(len(packed)),
		NarHash: sha256.Sum256(nar), NarSize: int64(len(nar)), References: refs, Deriver: narinfo.Path(hash.Base32()[20:] + "-" + name + ".drv"),
		URL: "nar/" + narinfo.Hash(sha256.Sum256(packed)).Base32() + ".nar.zst",
	}).Append(nil)
	info, err := narinfo.Parse(text) // which has its references sorted
	if err == nil {
		err = b.put(ctx, token, info.URL, packed)
	}
	if err == nil {
		err = b.put(ctx, token, path.Hash()+".narinfo", text)
	}
	if err != nil {
		return nil, err
	}
	b.known[path] = info
	return info, nil
}

// pack writes files as our own dumper reads them: as a NAR.
func (b *builder) pack(ctx context.Context, seed [32]byte, files map[string]file) ([]byte, error) {
	root, err := os.MkdirTemp(b.dir, "path-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(root) //nolint:errcheck // all of it goes at the end
	for name, f := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return nil, err
		}
		mode := os.FileMode(0o644)
		if f.executable {
			mode = 0o755
		}
		if f.to != "" {
			err = os.Symlink(f.to, at)
		} else {
			err = os.WriteFile(at, append([]byte(f.text), noise(seed, f.size)...), mode)
		}
		if err != nil {
			return nil, err
		}
	}
	var nar bytes.Buffer
	_, err = dump.Write(ctx, &nar, root)
	return nar.Bytes(), err
}

// noise packs to a third of its size, as programs do.
func noise(seed [32]byte, size int) []byte {
	r := rand.NewChaCha8(seed)
	text := make([]byte, size)
	for at := 0; at < size; at += 1536 {
		_, _ = r.Read(text[at:min(at+512, size)])
	}
	return text
}

// put uploads a file.
func (b *builder) put(ctx context.Context, token, name string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, b.url+"/"+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth("demo", token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return err
}
