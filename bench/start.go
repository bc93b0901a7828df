//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/state/bolt"
	"narwharf/narinfo"
)

// maxStart is the target of a start after a stop in order.
const maxStart = 3 * time.Second

// startRow stops the server, gives its index as many paths as the plan says, and
// measures how long the server takes to start and answer. The files of these paths
// are not there: after a stop in order nobody looks at them.
func (h *hosts) startRow(p plan, dir string) (row, error) {
	h.fleet.Close()
	h.server.stop()
	began := time.Now()
	if err := fillIndex(filepath.Join(dir, "data", "narwharf.db"), p.paths, 1, 10, 100, 1000); err != nil {
		return row{}, err
	}
	progress("%d paths in the index (%s)", p.paths, time.Since(began).Round(time.Second/10))
	var took []float64
	for range p.starts {
		began := time.Now()
		s, err := start(h.server.name, h.server.addr, dir, exec.Command(h.server.cmd.Path, h.server.cmd.Args[1:]...))
		if err != nil {
			return row{}, err
		}
		h.server = s
		if err := s.ready(); err != nil {
			return row{}, err
		}
		took = append(took, time.Since(began).Seconds())
		s.stop()
	}
	r := row{
		what:   fmt.Sprintf("start after a stop in order, with %d uploaded paths and %d hosts", p.paths, len(h.names)),
		values: [2]string{fmt.Sprintf("%.2f s", median(took))},
		remark: fmt.Sprintf("%d starts, the slowest %.2f s", len(took), max(took[0], took[len(took)-1])),
		goal:   "< 3 s", missed: median(took) >= maxStart.Seconds(),
	}
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, nil
}

// fillIndex makes the index of a data_dir hold n paths, of which each refers to those that
// are so many places before it.
func fillIndex(file string, n int, backs ...int) error {
	s, err := bolt.Open(file, bolt.Options{NoSync: true})
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // what was written is asked below
	idx, err := index.Open(s, index.Options{})
	if err != nil {
		return err
	}
	names := hashParts(n)
	at := func(i int) narinfo.Path { return narinfo.Path(fmt.Sprintf("%s-package-%d", names[i], i)) }
	const batch = 5000
	for from := 0; from < n; from += batch {
		err := idx.Change(nil, func(tx *index.Tx) error {
			for i := from; i < min(from+batch, n); i++ {
				r := &index.Record{
					Info: &narinfo.Info{
						StoreDir: "/nix/store", Path: at(i), URL: fmt.Sprintf("nar/%052d.nar.zst", i), Compression: "zstd", FileSize: 1000,
						NarHash: narinfo.Hash{byte(i), byte(i >> 8), byte(i >> 16), 1}, NarSize: 4000,
						Sigs: []string{"cache.example.org-1:" + strings.Repeat("A", 86) + "=="},
					},
					Uploaded: time.Unix(1_700_000_000, 0), By: "ci",
				}
				for _, back := range backs {
					if i >= back {
						r.Info.References = append([]narinfo.Path{at(i - back)}, r.Info.References...)
					}
				}
				if err := tx.Put(r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return idx.Close(index.Files{Count: int64(n), Size: int64(n) * 1000})
}

// hashParts makes n hash parts, spread as real ones are, in order. They are the same each
// time.
func hashParts(n int) []string {
	all := make([]string, n)
	for i := range all {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
		all[i] = narinfo.Hash(sum).Base32()[20:]
	}
	slices.Sort(all)
	return all
}
