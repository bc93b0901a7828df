package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/browser"
)

// seenWithin is how long a change may take to be seen on a busy machine. On a quiet one it is a second.
const seenWithin = 30 * time.Second

// sees waits until a text is on the page, which is not loaded anew for it.
func sees(t testing.TB, b *browser.Page, text string) {
	t.Helper()
	if !b.Until(fmt.Sprintf("document.body.innerText.toLowerCase().includes(%q)", strings.ToLower(text)), seenWithin) {
		t.Fatalf("%s does not come to say %q:\n%s", b.At(), text, b.Text())
	}
}

// mark is on the page until it is loaded anew.
func mark(b *browser.Page) { b.Eval("void (window.marked = true)") }

func marked(b *browser.Page) bool { return b.Eval("window.marked === true") == "true" }

// TestPageStory: somebody watches a canary fail, aborts, types the line that the page has for going
// back, and pauses the next release and lets it go on; all of that by clicks, with nothing against the
// page's policy.
func TestPageStory(t *testing.T) {
	t.Parallel()
	d := newDemo(t, "-hosts", "20")
	b := d.browse()
	d.typed("good web", "web: release 2")
	b.Open(d.url + "/ui/channels/web")
	mark(b)
	sees(t, b, "release 2")
	sees(t, b, "completed")
	d.typed("bad web", "web: release 3")
	sees(t, b, "release 3")
	sees(t, b, "halted")
	sees(t, b, "nginx.service") // why
	if !marked(b) {
		t.Error("the page was loaded anew to show what came")
	}
	line := b.Eval(`[...document.querySelectorAll("[data-copy]")].map(e => e.textContent).find(text => text.includes("rollback")) ?? ""`)
	press(t, b, "abort", "the canary lacks nginx")
	sees(t, b, "aborted")

	words := strings.Fields(line)
	if len(words) < 3 || words[0] != "narwharf" || words[1] != "rollback" || words[2] != "web" {
		t.Fatalf("the line to go back is %q", line)
	}
	back := d.cli(append(words[1:], "--key", filepath.Join(d.dir, "deploy.sec"))...)
	if back.Code != 0 {
		t.Fatalf("%s: %v", line, back)
	}
	sees(t, b, "release 4")
	sees(t, b, "completed")

	d.typed("good web", "web: release 5")
	sees(t, b, "release 5")
	press(t, b, "pause", "")
	sees(t, b, "paused")
	press(t, b, "resume", "")
	sees(t, b, "completed")
	if len(b.Said) > 0 {
		t.Errorf("the browser says %q", b.Said)
	}
}

// press clicks on a button of the page and confirms it, with a reason.
func press(t testing.TB, b *browser.Page, verb, reason string) {
	t.Helper()
	button := `main a[href$="/` + verb + `"], main a[href*="/` + verb + `?"]`
	if !b.Until("!!document.querySelector("+fmt.Sprintf("%q", button)+")", seenWithin) {
		t.Fatalf("%s has no button %s:\n%s", b.At(), verb, b.Text())
	}
	b.Click(button)
	if reason != "" {
		b.Type("#reason", reason)
	}
	b.Click("form button[type=submit]")
	if wrong := b.Eval(`document.querySelector(".wrong")?.innerText ?? ""`); wrong != "" {
		t.Fatalf("%s: %s", verb, wrong)
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
		sees(t, tab, "release 1")
		mark(tab)
		if hidden := tab.Eval("document.hidden"); hidden != "false" {
			t.Errorf("tab %d is in front, and hidden %s", i, hidden)
		}
	}
	last := tabs[len(tabs)-1]
	d.typed("good web", "web: release 2")
	sees(t, last, "release 2")
	if tabs[0].Eval("document.hidden") == "true" && strings.Contains(tabs[0].Text(), "elease 2") {
		t.Error("a hidden tab has a stream, too")
	}
	tabs[0].Front()
	sees(t, tabs[0], "release 2")
	if !marked(tabs[0]) || !marked(last) {
		t.Error("a page was loaded anew")
	}
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
			sees(t, b, fmt.Sprintf("release %d", seq))
			mark(b)
			seq++
			began := time.Now()
			d.typed("good web", fmt.Sprintf("web: release %d", seq))
			sees(t, b, fmt.Sprintf("release %d", seq))
			if !marked(b) {
				t.Error("the page was loaded anew")
			}
			t.Logf("seen %s after it was typed", time.Since(began).Round(time.Millisecond))
		})
	}
}
