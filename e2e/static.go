package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// StartStatic has nginx serve a folder, and nothing else, until the test ends: what a static Nix
// cache or an S3 bucket is to its clients.
func StartStatic(t testing.TB, folder string) (url string) {
	t.Helper()
	needTool(t, "nginx", "nginx-light")
	dir, listen := scratch(t), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n"
	}
	file := filepath.Join(dir, "config")
	config := user + "daemon off; worker_processes 1; pid pid; error_log stderr warn;\nevents { worker_connections 200; }\nhttp {\n" +
		"access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n" +
		"server { listen " + listen + "; root " + folder + "; }\n}\n"
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nginx", "-p", dir, "-c", file, "-e", "stderr")
	cmd.Dir, cmd.SysProcAttr = dir, ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	for range 500 {
		if c, err := net.Dial("tcp", listen); err == nil {
			_ = c.Close()
			return "http://" + listen
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("nginx does not listen with\n%s", config)
	return ""
}
