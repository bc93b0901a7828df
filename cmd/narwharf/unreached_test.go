package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// typed is what a person types behind commands that talk to a server; those that are not here take nothing.
var typed = map[string]string{
	"access sessions end": "abc", "alarm close": "5 --reason x", "alarm take": "5", "budget remove": "n", "budget set": "n 1", "channel delete": "web",
	"channel history": "web", "channel keys": "web", "channel policy": "web", "channel show": "web", "check ask": "n", "delete": "/nix/store/" + nobody,
	"hold remove": "n", "hold set": "n a=b --reason x", "host approve": "h", "host hold": "h --reason x", "host label": "h a=b", "host refuse": "h --key SHA256:x", "host release": "h",
	"host remove": "h", "host retry": "h", "host revert": "h", "host show": "h", "host unhold": "h", "import": ".", "notify test": "n", "plan": "web",
	"quarantine clear": "/nix/store/" + nobody, "reboots free": "g i", "rollout abort": "web --reason x", "rollout advance": "web --reason x",
	"rollout pause": "web", "rollout resume": "web", "rollout retry": "web", "rollout show": "web", "rollout skip": "web --reason x",
	"rollout watch": "web", "unpin": "n", "watch": "web", "why": "/nix/store/" + nobody,
}

const nobody = "00000000000000000000000000000000-x"

// apart are those that first want what is here: keys, files, a store, a login.
var apart = []string{"bootstrap", "channel refresh", "deploy", "doctor client", "key sign", "login", "logout", "promote", "rollback"}

// TestEveryCommandWithoutServer: each command that talks to a server says, at once and in one line, what to look at when
// there is none, or something else.
func TestEveryCommandWithoutServer(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("NIX_CONF_DIR", t.TempDir()) // of use
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer page.Close()
	// One that speaks TLS and says nothing to who does not, as many do.
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() {
		for {
			conn, err := mute.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1))
			conn.Close()
		}
	}()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	var try func(c *cobra.Command)
	n := 0
	try = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			try(sub)
		}
		name := strings.TrimPrefix(c.CommandPath(), "narwharf ")
		for _, other := range apart {
			if name == other {
				return
			}
		}
		if !c.Runnable() || c.Flags().Lookup("server") == nil {
			return
		}
		n++
		for url, says := range map[string]string{
			"http://127.0.0.1:1": "does narwharf serve run there", "http://cache.invalid": "look at the name", other.URL: "the path in ",
			page.URL: "the port and the path in ", "http://" + mute.Addr().String(): "should begin with https://", strings.Replace(other.URL, "http", "https", 1): "should begin with http://",
			strings.Replace(secure.URL, "https", "http", 1): "should begin with https://", secure.URL: "--ca-file",
		} {
			var out, errs strings.Builder
			began := time.Now()
			args := append(strings.Fields(name+" "+typed[name]), "--server", url)
			if name == "import" {
				args[1] = filepath.Join(t.TempDir(), "none")
			}
			code := run(args, strings.NewReader(""), &out, &errs)
			if code != 2 || !strings.Contains(errs.String(), says) || strings.Count(errs.String(), "\n") != 1 || strings.Contains(out.String(), url) {
				t.Errorf("%s at %s: exit %d, %q %q; want %q", name, url, code, out.String(), errs.String(), says)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s at %s: after %s", name, url, took)
			}
		}
	}
	try(rootCommand())
	if n < 45 {
		t.Errorf("%d commands talk to a server", n)
	}
}
