package place

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

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
