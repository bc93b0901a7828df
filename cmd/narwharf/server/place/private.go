package place

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"narwharf/hooks/serverconfig"
)

// ShutOut closes the folder of a private cache to other users of the machine: who may not
// read the cache may not read its files. One with a socket of listen stays open to pass
// through, and the folders in it are closed.
func ShutOut(cfg *serverconfig.Config, log *slog.Logger) {
	folders, within := []string{cfg.DataDir}, false
	for _, l := range cfg.Listen {
		socket, isUnix := strings.CutPrefix(l, "unix:")
		rest, err := filepath.Rel(cfg.DataDir, socket)
		within = within || isUnix && err == nil && filepath.IsLocal(rest)
	}
	if within {
		entries, _ := os.ReadDir(cfg.DataDir) // without them nothing is closed, and the log says of what
		for _, e := range entries {
			if e.IsDir() {
				folders = append(folders, filepath.Join(cfg.DataDir, e.Name()))
			}
		}
	}
	for i, name := range folders {
		st, err := os.Stat(name)
		if err != nil {
			continue
		}
		mode := st.Mode().Perm() &^ 0o007
		if i == 0 && within {
			mode |= 0o001
		}
		if mode == st.Mode().Perm() {
			continue
		}
		if err := os.Chmod(name, mode); err != nil {
			log.Warn("reading the cache needs a token, and other users of this machine can read its files", "folder", name, "error", err)
		} else {
			log.Info("closed to other users of this machine, since reading the cache needs a token", "folder", name, "mode", mode)
		}
	}
}

// BecomeOwner makes a process of root's work as the owner of dir, so that
// `sudo narwharf …` leaves no file that the service cannot read.
func BecomeOwner(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	uid, gid := int(owner.Uid), int(owner.Gid)
	if err = syscall.Setgroups([]int{gid}); err == nil {
		err = syscall.Setgid(gid)
	}
	if err == nil {
		err = syscall.Setuid(uid)
	}
	if err != nil {
		return fmt.Errorf("work as the owner of %s: %w", dir, err)
	}
	return nil
}
