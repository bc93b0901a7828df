package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"narwharf/e2e/repository"
)

// WebProxies are the programs for which docs/operating.md has a block.
var WebProxies = []string{"nginx", "caddy", "haproxy"}

// StartWebProxy starts one of them before a server on addr, with the block of docs/operating.md,
// in which nothing but addresses is replaced. It ends with the test.
func StartWebProxy(t testing.TB, program, addr string) (url string) {
	t.Helper()
	return startWebProxy(t, program, addr, func(block string) string { return block })
}

// startWebProxy is StartWebProxy with a block that a test has changed.
func startWebProxy(t testing.TB, program, addr string, edit func(block string) string) (url string) {
	t.Helper()
	tool := strings.Replace(program, "varnish", "varnishd", 1)
	needTool(t, tool, strings.Replace(program, "nginx", "nginx-light", 1))
	dir, port := scratch(t), freePort(t)
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	block := strings.ReplaceAll(edit(documented(t, program)), "127.0.0.1:8080", addr)
	file := filepath.Join(dir, "config")
	var argv []string
	switch program {
	case "nginx":
		user := ""
		if os.Getuid() == 0 {
			user = "user root;\n"
		}
		block = user + "daemon off; worker_processes 2; pid pid; error_log stderr warn;\nevents { worker_connections 2000; }\nhttp {\n" +
			"access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n" +
			strings.Replace(block, "listen 80;", "listen "+listen+";", 1) + "}\n"
		argv = []string{"nginx", "-p", dir, "-c", file, "-e", "stderr"}
	case "caddy":
		block = "{\n admin off\n}\n" + strings.Replace(block, "cache.example.org {", "http://127.0.0.1:"+fmt.Sprint(port)+" {", 1)
		argv = []string{"caddy", "run", "--config", file, "--adapter", "caddyfile"}
	case "varnish":
		host, backend, _ := strings.Cut(addr, ":")
		block = strings.NewReplacer(`"127.0.0.1"`, `"`+host+`"`, `"8080"`, `"`+backend+`"`).Replace(edit(documented(t, program)))
		argv = []string{tool, "-F", "-a", listen, "-f", file, "-n", dir, "-T", "none", "-s", "malloc,256m", "-j", "none"}
	case "haproxy":
		block = "global\n    maxconn 2000\n\n" + strings.Replace(block, "bind :80", "bind "+listen, 1)
		argv = []string{"haproxy", "-db", "-f", file}
	}
	if err := os.WriteFile(file, []byte(block), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = dir, log, log, ownGroup()
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := func() string { text, _ := os.ReadFile(log.Name()); return Tail(string(text), 6000) }
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			t.Logf("%s said:\n%s", program, said())
		}
	})
	// Varnish compiles its configuration first, which takes a while beside other work.
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", listen); err == nil {
			_ = c.Close()
			return "http://" + listen
		}
	}
	t.Fatalf("%s does not listen:\n%s\nwith\n%s", program, said(), block)
	return ""
}

// documented is the block of docs/operating.md for a program.
func documented(t testing.TB, program string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository.Root, "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	name := strings.NewReplacer("caddy", "caddyfile", "varnish", "vcl").Replace(program)
	m := regexp.MustCompile("(?s)\n```" + name + "\n(.*?)```\n").FindSubmatch(text)
	if m == nil {
		t.Fatalf("docs/operating.md has no block ```%s", name)
	}
	return string(m[1])
}
