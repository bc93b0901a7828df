// Package place looks at where data_dir lies before it is opened, and explains why it
// cannot be.
package place

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"narwharf/cache/state"
	"narwharf/hooks/serverconfig"
)

// Explain says what to do about an error of opening data_dir.
func Explain(cfg *serverconfig.Config, err error) error {
	dir := cfg.DataDir
	switch {
	case err == nil:
		return nil
	case errors.Is(err, state.ErrDamaged):
		return fmt.Errorf("%w\nThe files beside it are the truth, and it can be made anew from them:\n    mv %s %[2]s.damaged\n    narwharf rebuild --config %s\nTokens and channels come back; who uploaded what, and the audit log, do not", err, filepath.Join(dir, "narwharf.db"), cfg.Path())
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: data_dir %s is on a file system that is mounted read-only: mount it for writing", err, dir)
	case errors.Is(err, fs.ErrPermission):
		me, owner := userName(os.Geteuid()), ""
		if st, err := os.Stat(dir); err == nil {
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				owner = userName(int(sys.Uid))
			}
		}
		switch owner {
		case "":
			return fmt.Errorf("%w: %s cannot make data_dir %s: make the folder for it (mkdir %[3]s; chown %[2]s %[3]s), or set another data_dir in %[4]s", err, me, dir, cfg.Path())
		case me:
			return fmt.Errorf("%w: %s owns data_dir %s and cannot write to it: chmod -R u+rwX %[3]s", err, me, dir)
		}
		return fmt.Errorf("%w: data_dir %s belongs to %s and this is %s: run it as that user (sudo -u %[3]s narwharf …; root may, too), or give the folder to yours (chown -R %[4]s %[2]s)", err, dir, owner, me)
	case errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EEXIST):
		return fmt.Errorf("%w: data_dir %s has to be a folder: set another one in %s", err, dir, cfg.Path())
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: the file system of data_dir %s is full", err, dir)
	}
	return err
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(uid)
}

// Check refuses a data_dir that is absent or empty and was neither before: it
// is not mounted, and a new one in its place would hide the old. A note outside of it
// says that it was used. A configuration that lies in data_dir needs none.
func Check(cfg *serverconfig.Config) error {
	files, err := os.ReadDir(cfg.DataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(files) > 0 {
		return nil //nolint:nilerr // what is wrong with it, others say
	}
	what := "is empty"
	if err != nil {
		what = "is not there"
	}
	for dir := cfg.DataDir; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if note := noteFor(dir); noted(note, cfg.DataDir) {
			return fmt.Errorf("data_dir %s %s, and it was used before: is it mounted? If it shall begin anew, first delete %s", cfg.DataDir, what, note)
		}
	}
	return nil
}

// Note leaves a note beside data_dir, and beside the mount point that it lies
// below, where it may.
func Note(cfg *serverconfig.Config) {
	if rel, err := filepath.Rel(cfg.DataDir, cfg.Path()); cfg.Path() == "" || err == nil && !strings.HasPrefix(rel, "..") {
		return
	}
	if syscall.Access(cfg.DataDir, 2) != nil { // W_OK: it will not be used
		return
	}
	for dir := cfg.DataDir; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		mounted := device(dir) != device(filepath.Dir(dir))
		if note := noteFor(dir); (dir == cfg.DataDir || mounted) && !noted(note, cfg.DataDir) {
			if f, err := os.OpenFile(note, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o644); err == nil {
				fmt.Fprintf(f, "narwharf makes no new data_dir while this file names it and it is gone: see docs/config.md.\n%s\n", cfg.DataDir)
				f.Close()
			}
		}
		if mounted {
			return
		}
	}
}

// noteFor is the file beside a folder that says that there was one.
func noteFor(dir string) string {
	return filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".narwharf")
}

// noted tells whether a note names a data_dir.
func noted(note, dataDir string) bool {
	text, err := os.ReadFile(note)
	return err == nil && strings.Contains("\n"+string(text), "\n"+dataDir+"\n")
}

func device(dir string) uint64 {
	if st, err := os.Stat(dir); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			return uint64(sys.Dev) //nolint:unconvert // int32 on other systems
		}
	}
	return 0
}
