package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/browser"
)

// TestPageStory: somebody watches a canary fail, aborts, types the line that the page has for going
// back, and pauses the next release and lets it go on; all of that by clicks, with nothing against the
// page's policy.
func TestPageStory(t *testing.T) {
	t.Parallel()
	d := newDemo(t, "-hosts", "20")
	b := d.browse()
	d.typed("good web", "web: release 2")
	b.Open(d.url + "/ui/channels/web")
	b.Sees("release 2")
	b.Sees("completed")
	d.typed("bad web", "web: release 3")
	b.Sees("release 3")
	b.Sees("halted")
	b.Sees("nginx.service") // why
	line := b.Copied("rollback")
	b.Confirm("abort", "the canary lacks nginx")
	b.Sees("aborted")

	words := strings.Fields(line)
	if len(words) < 3 || words[0] != "narwharf" || words[1] != "rollback" || words[2] != "web" {
		t.Fatalf("the line to go back is %q", line)
	}
	back := d.cli(append(words[1:], "--key", filepath.Join(d.dir, "deploy.sec"))...)
	if back.Code != 0 {
		t.Fatalf("%s: %v", line, back)
	}
	b.Sees("release 4")
	b.Sees("completed")

	d.typed("good web", "web: release 5")
	b.Sees("release 5")
	b.Confirm("pause", "")
	b.Sees("paused")
	b.Confirm("resume", "")
	b.Sees("completed")
	if len(b.Said) > 0 {
		t.Errorf("the browser says %q", b.Said)
	}
}

// TestPageTabs: seven tabs of a browser, which opens six connections to a server of HTTP/1.1, and one
// stream of events each while it is seen. What is seen moves.
func TestPageTabs(t *testing.T) {
	t.Parallel()
	d := newDemo(t, "-hosts", "10")
	tabs := []*browser.Page{d.browse()}
	for len(tabs) < 7 {
		tabs = append(tabs, tabs[0].Page())
	}
	for i, tab := range tabs {
		tab.Front()
		tab.Open(d.url + "/ui/channels/web")
		tab.Sees("release 1")
		if hidden := tab.Eval("document.hidden"); hidden != "false" {
			t.Errorf("tab %d is in front, and hidden %s", i, hidden)
		}
	}
	last := tabs[len(tabs)-1]
	d.typed("good web", "web: release 2")
	last.Sees("release 2")
	if tabs[0].Eval("document.hidden") == "true" && strings.Contains(tabs[0].Text(), "elease 2") {
		t.Error("a hidden tab has a stream, too")
	}
	tabs[0].Front()
	tabs[0].Sees("release 2")
}

// TestPageProxied: events come through an nginx that has nothing but proxy_pass, and through the one
// of docs/operating.md.
func TestPageProxied(t *testing.T) {
	t.Parallel()
	d := newDemo(t, "-hosts", "10")
	b := d.browse()
	seq := 1
	for name, edit := range map[string]func(string) string{
		"defaults":   func(string) string { return "server { listen 80; location / { proxy_pass http://127.0.0.1:8080; } }\n" },
		"documented": func(block string) string { return block },
	} {
		t.Run(name, func(t *testing.T) {
			proxy := startWebProxy(t, "nginx", strings.TrimPrefix(d.url, "http://"), edit)
			b.Open(proxy + "/ui/channels/web") // a cookie is for all ports of a name
			b.Sees(fmt.Sprintf("release %d", seq))
			seq++
			began := time.Now()
			d.typed("good web", fmt.Sprintf("web: release %d", seq))
			b.Sees(fmt.Sprintf("release %d", seq))
			t.Logf("seen %s after it was typed", time.Since(began).Round(time.Millisecond))
		})
	}
}
