package fleet

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/browser"
)

// TestPage is story 14 with real hosts: somebody watches a canary fail in a browser, ends that by clicks,
// types the line that the page has for going back, and holds the next release for a while.
func TestPage(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	if _, err := exec.LookPath("chromium"); err != nil {
		lacking(t, "no program chromium; as root: apt-get install chromium")
	}
	fw := &rollingout{newFollower(t, 3)}
	url := outside(t, fw.CI().Machine, "cache:80")
	fw.Server().Configure(func(toml string) string { return fmt.Sprintf("public_url = %q\n", url) + toml })
	fw.Server().Restart()
	fw.promote(0, fw.system("a"))
	fw.asks(http.MethodPatch, "hosts/h1", `{"labels":{"canary":"true"}}`, 200)
	fw.policy(`{"rollout":{"waves":[{"name":"canary","select":"canary=true","bake":"3s"},{}]}}`)
	b := browser.New(t)
	b.LogIn(url, fw.Server().Token("person", "operate"))
	fw.story(t, "14: a canary fails, abort, roll back, pause, resume", func(s *Story, follower *follower) {
		fw := &rollingout{follower}
		good := fw.system("b")
		fw.comes(fw.send(good), "completed", good, "h1", "h2", "h3")
		b.Open(url + "/ui/channels/web")
		begin := time.Now()
		bad := fw.send(fw.system("bad", misbehave(Unhealthy)))
		b.Sees(fmt.Sprintf("release %d", bad))
		b.Sees("halted")
		s.Took("promote to halted, on the page", time.Since(begin))
		line := b.Copied("rollback")
		b.Confirm("abort", "the canary is not well")
		b.Sees("aborted")
		words := strings.Fields(line)
		if len(words) < 3 || !slices.Equal(words[:3], []string{"narwharf", "rollback", "web"}) {
			s.Fatalf("the line to go back is %q", line)
		}
		if back := fw.narwharf("rollback", words[2:]...); back.Code != 0 {
			s.Fatalf("%s: %v", line, back)
		}
		b.Sees("completed")
		fw.run(good, "b", "ok")

		next := fw.system("c")
		seq := fw.send(next)
		b.Sees(fmt.Sprintf("release %d", seq))
		b.Confirm("pause", "let me look")
		b.Sees("paused")
		b.Confirm("resume", "")
		fw.comes(seq, "completed", next, "h1", "h2", "h3")
		b.Sees("completed")
		if len(b.Said) > 0 {
			s.Errorf("the browser says %q", b.Said)
		}
	})
}

// outside makes what a machine reaches at an address reachable from this one, and returns the URL.
func outside(t *testing.T, from Machine, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := from.DialContext(t.Context(), "tcp", address)
				if err != nil {
					return
				}
				defer out.Close()
				go func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite() }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}
