package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/state/durable"
	"narwharf/cache/state/progress"
	"narwharf/cache/stored"
	"narwharf/hooks"
	"narwharf/narinfo"
)

// ExportArgs are what is exported: channels, whose current release it is, and store
// paths. None is all that was uploaded.
type ExportArgs struct {
	What []string `json:"what"`
}

// Exported is one line of the answer: a narinfo as clients get it. Its NAR is a file of
// the folder cache of data_dir.
type Exported struct {
	Narinfo string `json:"narinfo"`
}

// export lists what is exported, with all that it refers to. What is in the machine's own
// store, or in an upstream, alone becomes uploads before.
func export(ctx context.Context, d *DataDir, args ExportArgs, out io.Writer) (exit int, err error) {
	c, channels, done, err := d.whole(io.Discard, true)
	if err != nil {
		return 2, err
	}
	defer func() { err = errors.Join(err, done()) }()
	hashes, err := exportedPaths(ctx, c, channels, args.What)
	if err != nil {
		return 2, err
	}
	lines := json.NewEncoder(out)
	for i, hash := range hashes {
		progress.Report(ctx, "narinfos signed", int64(i), int64(len(hashes)))
		t, err := c.Signer.Get(ctx, hash, c.Uploads.Index)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return 2, err
		}
		if err := lines.Encode(Exported{string(t.Text)}); err != nil {
			return 2, err
		}
	}
	return 0, nil
}

// exportedPaths are the hash parts of what is exported.
func exportedPaths(ctx context.Context, c *stored.Cache, channels *hooks.Server, what []string) (hashes []string, err error) {
	if len(what) == 0 {
		err = c.Uploads.Index.Each(func(hash string, _ *index.Record, err error) error {
			hashes = append(hashes, hash)
			return errors.Join(err, ctx.Err())
		})
		return hashes, err
	}
	roots, err := exportedRoots(c, channels, what)
	if err != nil {
		return nil, err
	}
	all, err := closures(c, roots)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		hashes = append(hashes, p.Hash())
	}
	// They stay for a lease, and what is not ours yet becomes so: a copy is of files.
	if _, err := c.Use(ctx, hashes); err != nil {
		return nil, err
	}
	if _, err := c.Adopt(ctx, all, "export"); err != nil {
		return nil, err
	}
	for _, p := range all {
		if _, err := c.Uploads.Index.Get(p.Hash()); errors.Is(err, index.ErrNotFound) {
			if err := c.Fetch(ctx, p); err != nil {
				return nil, fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	return hashes, nil
}

// exportedRoots are the store paths that are named, and the systems of the channels that are.
func exportedRoots(c *stored.Cache, channels *hooks.Server, what []string) (roots []narinfo.Path, err error) {
	for _, name := range what {
		if strings.Contains(name, "/") {
			p, err := narinfo.ParsePath(c.Uploads.StoreDir, strings.TrimRight(name, "/"))
			if err != nil {
				return nil, err
			}
			roots = append(roots, p)
			continue
		}
		paths, err := channels.Fleet.Systems(name)
		if err != nil {
			return nil, err
		}
		roots = append(roots, paths...)
	}
	return roots, nil
}

// closures are the closures of roots, each path once.
func closures(c *stored.Cache, roots []narinfo.Path) (all []narinfo.Path, err error) {
	seen := make(map[narinfo.Path]bool)
	for _, root := range roots {
		infos, err := narinfo.Closure(root, func(p narinfo.Path) (*narinfo.Info, error) {
			if seen[p] {
				return nil, nil
			}
			seen[p] = true
			info, _, _, err := c.Info(p.Hash())
			if errors.Is(err, fs.ErrNotExist) || err == nil && info.Path != p {
				return nil, fmt.Errorf("%s, which %s needs, is not in this cache", p, root)
			}
			return info, err
		})
		if err != nil {
			return nil, err
		}
		for _, info := range infos {
			all = append(all, info.Path)
		}
	}
	return all, nil
}

// snapshot writes the database as it is at one moment to a file in data_dir, whose name
// it answers: a backup copies it from there, and removes it. What an earlier one left is
// removed here, and by a server that starts.
func snapshot(ctx context.Context, d *DataDir, _ struct{}, out io.Writer) (exit int, err error) {
	whole, can := d.State.(interface {
		Snapshot(ctx context.Context, w io.Writer) error
	})
	if !can {
		return 2, fmt.Errorf("the state is in %s, and narwharf backup copies a data_dir: see docs/scaling.md for pg_dump and a copy of the content files", d.State)
	}
	dir := filepath.Join(d.Config.DataDir, "tmp")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 2, err
	}
	old, err := filepath.Glob(filepath.Join(dir, "snapshot-*.db"))
	if err != nil {
		return 2, err
	}
	for _, name := range old {
		if st, err := os.Stat(name); err == nil && time.Since(st.ModTime()) > 24*time.Hour {
			_ = os.Remove(name) // as above
		}
	}
	name := filepath.Join(dir, fmt.Sprintf("snapshot-%d.db", time.Now().UnixNano()))
	f, err := durable.Create(name, durable.Options{Mode: 0o600, Exact: true})
	if err != nil {
		return 2, err
	}
	defer f.Abort()
	stop := progress.Every(ctx, "seconds for the database", time.Second)
	err = whole.Snapshot(ctx, f)
	stop()
	if err == nil {
		err = f.Commit()
	}
	if err != nil {
		return 2, fmt.Errorf("snapshot of the database: %w", err)
	}
	if _, err = fmt.Fprintln(out, name); err != nil {
		return 2, err
	}
	return 0, nil
}
