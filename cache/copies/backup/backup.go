// Package backup copies a data_dir that a server has open, and puts one back.
//
// A backup is a folder with what is in data_dir but for what is made again: packed copies
// of the machine's own store, files being received, sockets. Where it lies on the same
// file system, files of the cache are hard links: they never change and are replaced
// whole. It has the secrets that lie in data_dir, too.
//
// The database is as it was at one moment; the files are as of that moment or later, and
// a server that starts on them makes its index agree with the files. What is deleted
// while a backup is made is left out whole: no path is in it without its NAR or without
// one that it refers to, if that was there.
//
// The next backup into the same folder copies what is new and removes what is gone. At
// every moment the folder can be restored from, once it was finished for the first time:
// the database is exchanged when all its files are there, and what is not needed any more
// is removed after that.
package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"narwharf/cache/state/durable"
)

// Names in a backup and in a data_dir.
const (
	noteName   = "backup.json" // a backup has it from its beginning on
	database   = "narwharf.db"
	unfinished = "restore-unfinished" // a data_dir has it while it is being restored
	cacheDir   = "cache"
)

// leftOut are entries of a data_dir that no backup has, beside what is neither file nor
// folder.
var leftOut = []string{database, "packed", "tmp", "gcroots", cacheDir, noteName, unfinished}

// note says what a backup is.
type note struct {
	Version  int       `json:"v"`
	Narwharf string    `json:"narwharf"`
	Finished time.Time `json:"finished,omitzero"` // the last time; zero if never

	// Of data_dir.
	Mode fs.FileMode `json:"mode,omitempty"`
	UID  int         `json:"uid,omitempty"`
	GID  int         `json:"gid,omitempty"`
}

// Result is what a backup or a restore did.
type Result struct {
	Files   int64 `json:"files"`  // that are there now
	Linked  int64 `json:"linked"` // of those that came, as hard links
	Copied  int64 `json:"copied"` // the others that came
	Bytes   int64 `json:"bytes"`  // copied
	Removed int64 `json:"removed"`
	Lost    int64 `json:"lost"` // paths whose NAR data_dir has lost
}

// Options of a backup.
type Options struct {
	DataDir string
	// Snapshot is a file with the database as it was before Take was called.
	Snapshot string
	Dir      string // of the backup
	Narwharf string // this program's version
	// Report gets a line for people.
	Report func(line string)
}

// Take makes a backup, or brings one up to date.
func Take(ctx context.Context, o Options) (r Result, err error) {
	if inside(o.Dir, o.DataDir) || inside(o.DataDir, o.Dir) {
		return r, fmt.Errorf("%s and the data_dir %s lie in each other: name another folder", o.Dir, o.DataDir)
	}
	if err := begin(o.Dir, o.Narwharf); err != nil {
		return r, err
	}
	m, err := newMirror(o.DataDir, o.Dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.copyAs(o.Snapshot, database+".new"); err != nil {
		return r, err
	}
	p := &paths{mirror: m, report: o.Report}
	for _, step := range []func(context.Context) error{p.copy, m.restOfCache, m.restOfDataDir} {
		if err := step(ctx); err != nil {
			return m.result(), err
		}
	}
	if err := m.sync(); err != nil {
		return m.result(), err
	}
	// From here on the backup is of today.
	if err := os.Rename(filepath.Join(o.Dir, database+".new"), filepath.Join(o.Dir, database)); err != nil {
		return m.result(), err
	}
	n := note{Version: 1, Narwharf: o.Narwharf, Finished: time.Now().UTC().Truncate(time.Second)}
	if err := n.of(o.DataDir); err != nil {
		return m.result(), err
	}
	if err := writeNote(o.Dir, n); err != nil {
		return m.result(), err
	}
	err = m.prune(ctx)
	r = m.result()
	r.Lost = p.lost.Load()
	return r, err
}

// inside tells whether a folder is another or lies in it.
func inside(dir, of string) bool {
	rest, err := filepath.Rel(resolved(of), resolved(dir))
	return err == nil && (rest == "." || filepath.IsLocal(rest))
}

// resolved is a name without links, as far as it leads.
func resolved(name string) string {
	if is, err := filepath.EvalSymlinks(name); err == nil {
		return is
	}
	return filepath.Join(resolvedParent(name), filepath.Base(name))
}

func resolvedParent(name string) string {
	if is, err := filepath.EvalSymlinks(filepath.Dir(name)); err == nil {
		return is
	}
	return filepath.Dir(name)
}

// begin makes the folder of a backup, if it is not one.
func begin(dir, version string) error {
	if _, err := readNote(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if empty, err := isEmpty(dir); err != nil {
		return err
	} else if !empty {
		return fmt.Errorf("%s is not empty and is no backup: name a new folder", dir)
	}
	return writeNote(dir, note{Version: 1, Narwharf: version})
}

// isEmpty tells whether nobody has put anything into a folder.
func isEmpty(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != lostFound {
			return false, nil
		}
	}
	return err == nil, err
}

// lostFound is a folder that file systems have of themselves.
const lostFound = "lost+found"

// of notes whose data_dir is.
func (n *note) of(dataDir string) error {
	st, err := os.Stat(dataDir)
	if err != nil {
		return err
	}
	n.Mode = st.Mode().Perm()
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		n.UID, n.GID = int(sys.Uid), int(sys.Gid)
	}
	return nil
}

func readNote(dir string) (n note, err error) {
	text, err := os.ReadFile(filepath.Join(dir, noteName))
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(text, &n); err != nil {
		return n, fmt.Errorf("%s: %w", filepath.Join(dir, noteName), err)
	}
	if n.Version != 1 {
		return n, fmt.Errorf("%s has version %d and this narwharf knows version 1: use the newer narwharf", filepath.Join(dir, noteName), n.Version)
	}
	return n, nil
}

func writeNote(dir string, n note) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, noteName), append(text, '\n'), 0o600)
}

// restOfCache copies what is not narinfos: NARs that are further encodings, listings,
// logs, releases of channels.
func (m *mirror) restOfCache(ctx context.Context) error {
	return m.walk(ctx, cacheDir, func(rel string, d fs.DirEntry) (skip bool) {
		if d.IsDir() {
			return rel == filepath.Join(cacheDir, "quarantine")
		}
		return filepath.Dir(rel) == cacheDir && strings.HasSuffix(rel, ".narinfo")
	})
}

// restOfDataDir copies what else lies in data_dir.
func (m *mirror) restOfDataDir(ctx context.Context) error {
	return m.walk(ctx, ".", func(rel string, _ fs.DirEntry) (skip bool) {
		for _, name := range leftOut {
			if rel == name {
				return true
			}
		}
		return false
	})
}
