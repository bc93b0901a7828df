package serverconfig

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// OpenListeners listens on all addresses of the configuration, or on none. Those at which
// systemd listens for us already are inherited. It closes an inherited one that listen does not name, or no
// more: somebody may have taken the address away on purpose.
func (c *Config) OpenListeners(inherited []net.Listener, log *slog.Logger) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range slices.Concat(listeners, inherited) {
				l.Close()
			}
		}
	}()
	for _, address := range c.Listen {
		var l net.Listener
		if l, inherited = take(address, inherited); l != nil {
			listeners = append(listeners, l)
			continue
		}
		path, isUnix := strings.CutPrefix(address, "unix:")
		if isUnix {
			l, err = listenUnix(path, c.DataDir)
		} else {
			l, err = net.Listen("tcp", address)
		}
		if errors.Is(err, syscall.EACCES) && os.Geteuid() != 0 {
			return listeners, fmt.Errorf("listen on %s: %w; where a socket unit of systemd listens for it, that has to be started anew: systemctl restart NAME.socket", address, err)
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return listeners, fmt.Errorf("listen on %s: something else serves there; stop it, or set listen in %s", address, c.path)
		}
		if err != nil {
			return listeners, fmt.Errorf("listen: %w", err)
		}
		listeners = append(listeners, l)
	}
	for _, l := range inherited {
		log.Warn("systemd listens on an address that listen does not name; nobody is answered there: systemctl restart NAME.socket", "address", addressOf(l))
		l.Close()
	}
	return listeners, nil
}

// listenUnix opens a unix socket for everybody on this machine: requests on
// it show tokens as they do on TCP.
func listenUnix(path, dataDir string) (net.Listener, error) {
	if err := freeSocket(path); err != nil {
		return nil, err
	}
	made := []string{path}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		made = append(made, dir)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	// Its mode comes with it: a chmod of the name would follow a link that somebody who may
	// write to the folder has put there meanwhile.
	umask := syscall.Umask(0o111)
	l, err := net.Listen("unix", path)
	syscall.Umask(umask)
	if err != nil {
		return nil, err
	}
	// Root hands it to whom the rest of data_dir belongs to.
	if st, serr := os.Stat(dataDir); serr == nil && os.Geteuid() == 0 {
		owner, ok := st.Sys().(*syscall.Stat_t)
		for i := 0; ok && err == nil && i < len(made); i++ {
			err = os.Lchown(made[i], int(owner.Uid), int(owner.Gid))
		}
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// freeSocket removes a socket that nobody answers on: the rest of a killed process.
func freeSocket(path string) error {
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil //nolint:nilerr // what is wrong with it, net.Listen says
	case st.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return fmt.Errorf("%s: %w", path, syscall.EADDRINUSE)
	}
	return os.Remove(path)
}
