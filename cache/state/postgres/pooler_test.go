package postgres

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// pgbouncer starts one in transaction mode before the server, and returns an address with
// /DATABASE in it.
func pgbouncer(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("/usr/sbin/pgbouncer")
	if err != nil {
		if os.Getenv("NARWHARF_CI") != "" {
			t.Fatal("no pgbouncer is here: apt-get install pgbouncer")
		}
		t.Skip("no pgbouncer is here: apt-get install pgbouncer")
	}
	dir, err := os.MkdirTemp("", "pgbouncer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := fmt.Sprintf(`[databases]
* = host=%s user=narwharf
[pgbouncer]
unix_socket_dir = %s
listen_addr =
listen_port = 6432
auth_type = any
pool_mode = transaction
max_client_conn = 200
default_pool_size = 8
ignore_startup_parameters = extra_float_digits
`, server.Dir, dir)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, file)
	info, err := os.Stat(server.Dir)
	if err != nil {
		t.Fatal(err)
	}
	own := info.Sys().(*syscall.Stat_t)
	if os.Getuid() == 0 {
		if err := errors.Join(os.Chown(dir, int(own.Uid), int(own.Gid)), os.Chown(file, int(own.Uid), int(own.Gid))); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: own.Uid, Gid: own.Gid}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	socket := filepath.Join(dir, ".s.PGSQL.6432")
	eventually(t, "pgbouncer", func() bool {
		conn, err := net.DialTimeout("unix", socket, time.Second)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
	return "postgres://narwharf@/DATABASE?host=" + dir + "&port=6432&default_query_exec_mode=exec"
}
