// Package outbox is a queue of store paths that were built here and have to be uploaded.
//
// It is a folder with a link for each path, queue/<base name>, and nothing else that has to survive: who adds a path
// makes its link durable and returns, whoever sends it takes the link away afterwards. A link is an
// indirect root of Nix too (gcroots/auto has a link to it), so no collection takes a path that is
// not sent. errors/<base name> says why the last try failed, for people.
//
// Adding never waits for a sender, a lock or a network: it is called while a build ends.
package outbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/narinfo"
)

// A Queue is a folder.
type Queue struct {
	Dir      string
	NixState string // where roots are: /nix/var/nix
}

// An Item is a path that has to be sent.
type Item struct {
	Path  string    `json:"path"`
	Since time.Time `json:"since"`
	Error string    `json:"error,omitempty"` // of the last try
}

func (q *Queue) folder() string { return filepath.Join(q.Dir, "queue") }
func (q *Queue) errors() string { return filepath.Join(q.Dir, "errors") }

// Add queues a path of the store in a folder, and makes it a root. What is there already stays.
func (q *Queue) Add(path string) error {
	p, err := narinfo.ParsePath(filepath.Dir(path), path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(q.folder(), 0o755); err != nil {
		return err
	}
	link := filepath.Join(q.folder(), string(p))
	if err := os.Symlink(path, link); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("queue %s: %w", path, err)
	}
	if err := q.root(link); err != nil {
		return fmt.Errorf("queue %s: %w", path, err)
	}
	return durable.SyncDir(q.folder())
}

// root makes a link one that Nix's collector follows.
func (q *Queue) root(link string) error {
	link, err := filepath.Abs(link)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(link))
	auto := filepath.Join(q.NixState, "gcroots", "auto")
	if err := os.MkdirAll(auto, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(link, filepath.Join(auto, "narwharf-"+hex.EncodeToString(sum[:16]))); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(auto)
}

// List is what is queued, in the order of its names.
func (q *Queue) List() (items []Item, err error) {
	entries, err := os.ReadDir(q.folder())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		target, err := os.Readlink(filepath.Join(q.folder(), e.Name()))
		st, serr := e.Info()
		if err != nil || serr != nil || filepath.Base(target) != e.Name() {
			continue // sent meanwhile, or no link of ours
		}
		text, _ := os.ReadFile(filepath.Join(q.errors(), e.Name()))
		items = append(items, Item{Path: target, Since: st.ModTime(), Error: strings.TrimSpace(string(text))})
	}
	return items, nil
}

// Done takes a path out.
func (q *Queue) Done(path string) error {
	name := filepath.Base(path)
	_ = os.Remove(filepath.Join(q.errors(), name)) // there may be none
	if err := os.Remove(filepath.Join(q.folder(), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Failed notes why a path was not sent.
func (q *Queue) Failed(path string, why error) error {
	if err := os.MkdirAll(q.errors(), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(q.errors(), filepath.Base(path)), []byte(why.Error()+"\n"), 0o644)
}
