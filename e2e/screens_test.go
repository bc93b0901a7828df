package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"narwharf/e2e/browser"
)

var screens = flag.String("screenshots", "", "write the pictures of docs/ui.md to this folder")

// A screen is a view of which docs/ui.md has a picture.
type screen struct {
	name, path string
	both       bool // colours at both sizes; else light and large, dark and small
}

// TestScreenshots takes the pictures of docs/ui.md: `make screenshots`.
func TestScreenshots(t *testing.T) {
	if *screens == "" {
		t.Skip("make screenshots writes them")
	}
	if err := os.MkdirAll(*screens, 0o755); err != nil {
		t.Fatal(err)
	}
	d := newDemo(t, "-hosts", "200", "-switch", "4s", "-bake", "20s")
	b := d.browse()
	d.typed("good web", "web: release 2")
	d.typed("away kiosks 7", "switched off")
	d.typed("good kiosks", "kiosks: release 2")
	d.typed("good db", "db: release 2")
	shots := func(list ...screen) {
		for _, s := range list {
			s.take(t, d, b)
		}
	}
	b.Open(d.url + "/ui/channels/web")
	b.Until(`document.querySelectorAll("svg.cells path.w").length > 0 && /wave 3|a quarter/.test(document.body.innerText)`, 2*time.Minute)
	d.waits("web", "a quarter    open")
	shots(screen{"rollout", "/ui/channels/web", true})
	d.waits("db", "approval")
	shots(screen{"approval", "/ui/channels/db", false})
	d.is("web", "completed")
	d.typed("bad web", "web: release 3")
	d.is("web", "halted")
	shots(screen{"halted", "/ui/channels/web", false}, screen{"overview", "/ui/", true}, screen{"host", "/ui/hosts/web-001", false}, screen{"hosts", "/ui/hosts", false},
		screen{"release", "/ui/channels/web/releases/3", false}, screen{"alarms", "/ui/alarms", false}, screen{"limits", "/ui/limits", false},
		screen{"cache", "/ui/cache", false}, screen{"access", "/ui/access", false})
}

// take takes a view's pictures.
func (s screen) take(t *testing.T, d *demo, b *browser.Page) {
	for _, size := range []struct {
		name          string
		width, height int
	}{{"large", 1280, 900}, {"small", 360, 740}} {
		for _, dark := range []bool{false, true} {
			if !s.both && dark != (size.name == "small") {
				continue
			}
			b.Size(size.width, size.height)
			b.Dark(dark)
			b.Open(d.url + s.path)
			if b.Eval("performance.getEntriesByType('navigation')[0].responseStatus") != "200" {
				t.Errorf("%s is not there", s.path)
				return
			}
			b.Idle(300 * time.Millisecond)
			small, err := browser.Small(b.Screenshot(false))
			if err != nil {
				t.Fatal(err)
			}
			name := s.name + "-" + size.name + map[bool]string{true: "-dark"}[dark] + ".png"
			if err := os.WriteFile(filepath.Join(*screens, name), small, 0o644); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %d KB", name, len(small)/1000)
		}
	}
}
