package s3test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// What a Gateway takes for its key.
const (
	AccessKey = "narwharf-test"
	SecretKey = "narwharf-test-secret"
)

// Gateway is versitygw with buckets in a folder. Its version is in the Makefile.
type Gateway struct {
	Dir     string // a folder in it is a bucket
	Address string

	t       testing.TB
	program string
	cmd     *exec.Cmd
	out     bytes.Buffer
}

// Versitygw starts one with an empty bucket of the name "bucket". It ends with the test.
func Versitygw(t testing.TB) *Gateway {
	t.Helper()
	g := &Gateway{t: t, program: tool(t), Dir: t.TempDir()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.Address = l.Addr().String()
	l.Close()
	if err := os.Mkdir(filepath.Join(g.Dir, "bucket"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Stop()
		if t.Failed() {
			t.Log(g.out.String())
		}
	})
	g.Start()
	return g
}

// tool is the program, which make versitygw brings.
func tool(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if found, _ := filepath.Glob(filepath.Join(dir, ".cache/tools/versitygw-*")); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	if os.Getenv("NARWHARF_CI") == "1" {
		t.Fatal("versitygw is missing, and NARWHARF_CI=1 wants every test run")
	}
	t.Skip("versitygw is missing: make versitygw")
	return ""
}

// Endpoint is its URL.
func (g *Gateway) Endpoint() string { return "http://" + g.Address }

// Start starts it, again, and waits until it answers.
func (g *Gateway) Start() {
	g.t.Helper()
	g.cmd = exec.Command(g.program, "--port", g.Address, "--access", AccessKey, "--secret", SecretKey, "--quiet", "posix", g.Dir)
	g.cmd.Stdout, g.cmd.Stderr = &g.out, &g.out
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 400 {
		if resp, err := client.Get(g.Endpoint()); err == nil {
			resp.Body.Close()
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	g.t.Fatal("versitygw does not answer:\n" + g.out.String())
}

// Stop kills it.
func (g *Gateway) Stop() {
	if g.cmd != nil {
		_ = g.cmd.Process.Kill()
		_ = g.cmd.Wait()
		g.cmd = nil
	}
}
