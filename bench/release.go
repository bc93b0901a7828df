//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// webChannel is the channel that the hosts follow. Its kind is "path", so what
// is promoted need not be a NixOS system and no Nix is needed.
const webChannel = "web"

// A promoter promotes releases of small closures.
type promoter struct {
	addr, token string
	key         signing.SecretKey
	systems     [2]signing.Entry // without a target; promoted in turn
	seq         int64            // of the last release
}

// newPromoter uploads two systems, each of two paths, to s.
func newPromoter(s *server, dir string) (*promoter, error) {
	token, err := s.newToken("promoter", "promote:"+webChannel)
	if err != nil {
		return nil, err
	}
	p := &promoter{addr: s.addr, token: token}
	if p.key, err = signing.GenerateKey("bench-promoter-1"); err != nil {
		return nil, err
	}
	conn, err := dial(s.put, s.token)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lib, err := smallPath(dir, "lib")
	if err != nil {
		return nil, err
	}
	if err := conn.uploadPath(lib); err != nil {
		return nil, err
	}
	for i := range p.systems {
		system, err := smallPath(dir, fmt.Sprintf("system-%d", i), lib.info.Path)
		if err != nil {
			return nil, err
		}
		if err := conn.uploadPath(system); err != nil {
			return nil, err
		}
		manifest, err := signing.NewManifest([]*narinfo.Info{lib.info, system.info})
		if err != nil {
			return nil, err
		}
		p.systems[i] = signing.Entry{StorePath: system.info.Path.In(storeDir), Closure: manifest.Digest(), System: "x86_64-linux", Action: signing.Auto}
	}
	return p, nil
}

// smallPath makes a path with one small file.
func smallPath(dir, name string, refs ...narinfo.Path) (*storePath, error) {
	var nar []byte
	for _, word := range []string{"nix-archive-1", "(", "type", "regular", "contents", "the file of " + name, ")"} {
		nar = appendWord(nar, word)
	}
	packed, err := frame(nar)
	if err != nil {
		return nil, err
	}
	hash := narinfo.Hash(sha256.Sum256(nar))
	path, err := narinfo.ParseBase(hash.Base32()[:32] + "-" + name)
	if err != nil {
		return nil, err
	}
	info := &narinfo.Info{
		StoreDir: storeDir, Path: path, Compression: "zstd", FileHash: narinfo.Hash(sha256.Sum256(packed)), FileSize: int64(len(packed)),
		NarHash: hash, NarSize: int64(len(nar)), References: refs,
	}
	info.URL = "nar/" + info.FileHash.Base32() + ".nar.zst"
	file := filepath.Join(dir, name+".nar.zst")
	return &storePath{info: info, file: file}, os.WriteFile(file, packed, 0o644)
}

// A promotion is a signed release, ready to be sent.
type promotion struct {
	seq    int64
	system string // store path of all entries
	body   []byte
}

// next signs a release that has another system than the last one for each
// target; what a promoter does before the request is none of the server's time.
func (p *promoter) next(targets []string) (*promotion, error) { return p.nextOf(webChannel, targets) }

// nextOf is next for another channel.
func (p *promoter) nextOf(channel string, targets []string) (*promotion, error) {
	p.seq++
	system := p.systems[p.seq%2]
	entries := make([]signing.Entry, len(targets))
	for i, t := range targets {
		entries[i] = system
		entries[i].Target = t
	}
	head := signing.Head{
		Origin: "cache.example.org/" + channel, Channel: channel, Seq: p.seq, Created: time.Now(),
		Meta: map[string]string{"rev": "8f5c1a3c0d9e4b7f6a2d1c0b9e8f7a6d5c4b3a29", "by": "bench"},
	}
	release, err := signing.NewRelease(head, entries, p.key)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(api.Promotion{Release: *release, Kind: api.KindPath, Keys: []string{p.key.Public().String()}, Threshold: 1})
	return &promotion{p.seq, system.StorePath, body}, err
}

// send promotes, and returns how long the promoter waited for the answer.
func (p *promoter) send(r *promotion) (time.Duration, error) {
	url := "http://" + p.addr + "/api/v1/channels/" + webChannel
	req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(r.body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("If-Match", fmt.Sprintf(`"%d"`, r.seq-1))
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %.500s", resp.Status, text)
	}
	if err != nil {
		return 0, fmt.Errorf("promote %d: %w", r.seq, err)
	}
	return time.Since(began), nil
}
