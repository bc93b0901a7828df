// Package durable is the one way to write a file so that it survives a power cut:
// after a crash at any moment the file has its old content or its new, whole.
//
// The content goes to an exclusive file of a random name, is synced, renamed into
// place, and the folder that it lands in is synced ("Files are hard", OSDI 2014,
// says why each step). No link is followed: one that has the target's name is
// replaced. A step that fails is an error, that of the folder too, and leaves the
// old file in place and nothing beside it.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Steps of writing a file that a test can let fail.
const (
	StepCreate  = "create"
	StepWrite   = "write"
	StepSync    = "sync"
	StepRename  = "rename"
	StepSyncDir = "syncdir"
)

// Options of Create.
type Options struct {
	// Mode of a new file, less the umask unless Exact.
	Mode  fs.FileMode
	Exact bool
	// Temp is a folder on the target's file system for the file while it is
	// written; "" is the target's own, where its name begins with a dot.
	Temp string
	// Volatile leaves the syncs out: what may be lost in a power cut, or come out of it torn.
	Volatile bool
	// Fault, if set, is asked before each step, and its error is returned instead
	// of taking the step.
	Fault func(step string) error
}

// tempPrefix begins the name of a file that is being written.
const tempPrefix = ".new-"

// File is a file that is being written. It becomes visible with Commit.
type File struct {
	f            *os.File
	temp, target string
	fault        func(step string) error
	volatile     bool

	prepared, published bool
	linked              error // nil if what was there has the name old(), too
}

func (f *File) old() string { return f.temp + ".old" }

// Create begins to write a file. Whoever gets a File calls Commit or Abort.
func Create(target string, o Options) (*File, error) {
	f := &File{target: target, fault: o.Fault, volatile: o.Volatile}
	if o.Temp == "" {
		o.Temp = filepath.Dir(target)
	}
	if err := f.step(StepCreate); err != nil {
		return nil, err
	}
	f.temp = filepath.Join(o.Temp, tempPrefix+rand.Text())
	var err error
	if f.f, err = os.OpenFile(f.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, o.Mode); err != nil {
		return nil, err
	}
	if o.Exact {
		if err := f.f.Chmod(o.Mode); err != nil {
			f.Abort()
			return nil, err
		}
	}
	return f, nil
}

func (f *File) step(name string) error {
	if f.fault == nil {
		return nil
	}
	return f.fault(name)
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	if err := f.step(StepWrite); err != nil {
		return 0, err
	}
	return f.f.Write(p)
}

// Open opens for reading what was written so far, and what will be: the file is the same
// after Publish, and after Abort as long as somebody reads it.
func (f *File) Open() (*os.File, error) {
	if f.published {
		return os.Open(f.target)
	}
	return os.Open(f.temp)
}

// Abort gives up the file, if it is not committed. One that was published keeps its
// name, durable or not. It may be called again.
func (f *File) Abort() {
	_ = f.f.Close() // may be closed already; what counts is that the names go
	_ = os.Remove(f.temp)
	_ = os.Remove(f.old())
}

// Commit gives the file its name. When it returns nil the file is durable.
func (f *File) Commit() error {
	defer f.Abort() // what is left of it
	if err := f.Publish(); err != nil {
		return err
	}
	err := f.step(StepSyncDir)
	if err == nil && !f.volatile {
		err = SyncDir(filepath.Dir(f.target))
	}
	if err == nil {
		return nil
	}
	// The new name may not survive a power cut. It must go, or others would build
	// on what is seen now and lost then.
	var undo error
	switch {
	case f.linked == nil:
		undo = os.Rename(f.old(), f.target)
	case errors.Is(f.linked, fs.ErrNotExist):
		undo = os.Remove(f.target)
	}
	return errors.Join(err, undo)
}

// Prepare makes the content durable, which Commit does too: it is what takes time.
func (f *File) Prepare() error {
	if f.prepared {
		return nil
	}
	if err := f.step(StepSync); err != nil {
		return err
	}
	if !f.volatile {
		if err := f.f.Sync(); err != nil {
			return err
		}
	}
	f.prepared = true
	return f.f.Close()
}

// Publish gives the file its name, which is durable only after Commit. It does so
// once, however often it is called.
func (f *File) Publish() error {
	if f.published {
		return nil
	}
	if err := f.Prepare(); err != nil {
		return err
	}
	// What is replaced keeps a second name until the new name is durable. A file
	// system without hard links goes without.
	f.linked = os.Link(f.target, f.old())
	if err := f.step(StepRename); err != nil {
		return err
	}
	err := os.Rename(f.temp, f.target)
	f.published = err == nil
	return err
}

// WriteFile replaces a file, or makes it. An error names it.
func WriteFile(name string, content []byte, mode fs.FileMode) error {
	return Write(name, content, Options{Mode: mode})
}

// Write is WriteFile with options.
func Write(name string, content []byte, o Options) error {
	f, err := Create(name, o)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer f.Abort()
	if _, err = f.Write(content); err == nil {
		err = f.Commit()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Append adds to the end of a file that is there. After an error the file may have a part.
func Append(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// SyncDir makes the names in a folder durable: those that came and those that went.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Sweep removes from a folder what writers left there that ended before they could commit
// or abort, once it is older than age: no write takes so long.
func Sweep(dir string, age time.Duration) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var failed error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > age {
			failed = errors.Join(failed, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return failed
}

// Boot is the kernel's name of this boot (proc(5), random/boot_id), "" where it has none. What was written in another one
// and not synced may be torn.
func Boot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
