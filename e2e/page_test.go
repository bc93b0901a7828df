package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/browser"

	"narwharf/e2e/repository"
)

// TestPage looks at every view of the page in a browser: what the navigation and links on the views
// lead to, of the same kind no more than two, with -short one.
func TestPage(t *testing.T) {
	t.Parallel()
	d := newDemo(t, "-hosts", "20")
	d.typed("good db", "db: release 2")
	d.typed("bad web", "web: release 2")
	d.typed("away kiosks 1", "switched off")
	d.is("web", "halted")
	b := d.browse()
	views := crawl(t, d, b)
	t.Logf("%d views: %s", len(views), strings.Join(views, " "))
	t.Run("narrow", func(t *testing.T) { narrow(t, d, b, views) })
	t.Run("without scripts", func(t *testing.T) { withoutScripts(t, d, b, views) })
	t.Run("by keyboard", func(t *testing.T) { byKeyboard(t, d, b) })
	t.Run("for everybody", func(t *testing.T) { forEverybody(t, d, b, views) })
}

// most is how many views are looked at, and alike how many of a kind.
const most, alike = 120, 2

// changing are names in a path or query that differ where the view is the same.
var changing = regexp.MustCompile(`[^/=&]*[0-9][^/=&]*|(?:web|db|kiosks)`)

// seenAs is what views of one kind have in common: the path without names, and the keys of the query.
func seenAs(u *url.URL) string {
	var keys []string
	for key := range u.Query() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return changing.ReplaceAllString(u.Path, "*") + "?" + strings.Join(keys, "&")
}

// crawl opens all views from the first on, and says what is wrong with one. It returns their paths.
func crawl(t *testing.T, d *demo, b *browser.Page) (views []string) {
	t.Helper()
	alike := alike
	if testing.Short() {
		alike = 1
	}
	queue, queued, kinds := []string{"/ui/"}, map[string]bool{"/ui/": true}, map[string]int{}
	for len(queue) > 0 && len(views) < most {
		view := queue[0]
		queue = queue[1:]
		b.Said = nil
		b.Open(d.url + view)
		if status := b.Eval("performance.getEntriesByType('navigation')[0].responseStatus"); status != "200" {
			t.Errorf("%s: status %s: %s", view, status, b.Eval("document.querySelector('main')?.innerText"))
			continue
		}
		views = append(views, view)
		for _, wrong := range b.Said {
			t.Errorf("%s: the console says %s", view, wrong)
		}
		for what, script := range map[string]string{
			"one <h1>, with words":           "document.querySelectorAll('h1').length == 1 && document.querySelector('h1').innerText.trim() != ''",
			"a <title>":                      "document.title.trim() != ''",
			"a <main>":                       "document.querySelectorAll('main').length == 1",
			"a language":                     "document.documentElement.lang == 'en'",
			"no style of its own":            "document.querySelectorAll('[style], style').length == 0",
			"ids that are there once":        "new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size == document.querySelectorAll('[id]').length",
			"nothing that a template forgot": "!/<no value>|%!|\\{\\{|\\bNaN\\b|undefined|0001-01-01/.test(document.body.innerText)",
			"words without ends of bytes":    "!/\\uFFFD/.test(document.body.innerText)",
		} {
			if b.Eval(script) != "true" {
				t.Errorf("%s lacks %s:\n%s", view, what, Tail(b.Text(), 600))
			}
		}
		var links []string
		if err := json.Unmarshal([]byte(b.Eval("JSON.stringify([...document.links].map(a => a.href))")), &links); err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			u, err := url.Parse(link)
			if err != nil || !strings.HasPrefix(link, d.url+"/ui/") || strings.HasSuffix(u.Path, "/logout") {
				continue
			}
			next := u.Path
			if u.RawQuery != "" {
				next += "?" + u.RawQuery
			}
			if kind := seenAs(u); !queued[next] && kinds[kind] < alike {
				queue, queued[next] = append(queue, next), true
				kinds[kind]++
			}
		}
	}
	return views
}

// narrow wants no view to scroll sideways on a telephone.
func narrow(t *testing.T, d *demo, b *browser.Page, views []string) {
	b.Size(360, 740)
	defer b.Size(1280, 900)
	for _, view := range views {
		b.Open(d.url + view)
		if wide := b.Eval("document.documentElement.scrollWidth"); wide != "360" {
			t.Errorf("%s is %s px wide on a telephone of 360: %s", view, wide, b.Eval(`[...document.querySelectorAll('main *, header *')].filter(e => e.getBoundingClientRect().right > 361 &&
				!e.closest('.scroll, pre, svg')).slice(0, 5).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.trim().slice(0, 40)).join(' | ')`))
		}
	}
}

// withoutScripts wants each view to say the same where scripts do not run.
func withoutScripts(t *testing.T, d *demo, b *browser.Page, views []string) {
	words := func(view string) (title, text string) {
		b.Open(d.url + view)
		return b.Eval("document.querySelector('h1').innerText"), b.Eval("document.querySelector('main').textContent.replace(/\\s+/g, ' ')")
	}
	for _, view := range views {
		title, text := words(view)
		b.Scripts(false)
		plainTitle, plain := words(view)
		b.Scripts(true)
		if title != plainTitle || len(plain) < len(text)*6/10 {
			t.Errorf("%s has %d characters without scripts, with them %d: %s", view, len(plain), len(text), Tail(plain, 300))
		}
	}
}

// byKeyboard reaches the views of the navigation by Tab and Enter alone, and sees where it is.
func byKeyboard(t *testing.T, d *demo, b *browser.Page) {
	const focused = "document.activeElement"
	b.Open(d.url + "/ui/")
	var nav []string
	if err := json.Unmarshal([]byte(b.Eval("JSON.stringify([...document.querySelectorAll('nav a')].map(a => a.href))")), &nav); err != nil || len(nav) == 0 {
		t.Fatalf("no navigation: %v", err)
	}
	b.Press("Tab")
	if b.Eval(focused+".getAttribute('href')") != "#main" || b.Eval(focused+".getBoundingClientRect().left >= 0") != "true" {
		t.Errorf("the first Tab does not lead to a link that skips the navigation: %s", b.Eval(focused+".outerHTML"))
	}
	for _, want := range nav {
		b.Open(d.url + "/ui/")
		for n := 0; b.Eval(focused+".href ?? ''") != want; n++ {
			if n > 60 {
				t.Fatalf("Tab does not reach %s", want)
			}
			b.Press("Tab")
		}
		if style := b.Eval("getComputedStyle(" + focused + ").outlineStyle"); style == "none" {
			t.Errorf("nobody sees that %s is chosen", want)
		}
		b.PressTo("Enter")
		if at := b.Eval("location.href"); at != want {
			t.Errorf("Enter on %s leads to %s", want, at)
		}
	}
}

// forEverybody asks axe-core what is wrong with each view, in both colours.
func forEverybody(t *testing.T, d *demo, b *browser.Page, views []string) {
	onlyLong(t)
	fetch := exec.Command(filepath.Join(repository.Root, ".ci", "axe"))
	fetch.Stderr = os.Stderr
	name, err := fetch.Output()
	if err != nil {
		lacking(t, "no axe-core: .ci/axe needs npm and the npm registry: %v", err)
	}
	script, err := os.ReadFile(strings.TrimSpace(string(name)))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Dark(false)
	for _, dark := range []bool{false, true} {
		b.Dark(dark)
		for _, view := range views {
			b.Open(d.url + view)
			b.Idle(10 * time.Millisecond)
			b.Eval(string(script) + ";0")
			var found []struct {
				ID, Impact, Help string
				Nodes            []struct {
					HTML           string
					FailureSummary string
				}
			}
			if err := json.Unmarshal([]byte(b.Eval("axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations))")), &found); err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				at := fmt.Sprintf("%s (dark %v): %s: %s: %s", view, dark, f.Impact, f.ID, f.Help)
				if f.Impact == "serious" || f.Impact == "critical" || f.Impact == "moderate" {
					t.Errorf("%s: %s %s", at, f.Nodes[0].HTML, f.Nodes[0].FailureSummary)
				} else {
					t.Log(at)
				}
			}
		}
	}
}
