package store

import (
	"context"
	"io/fs"
	"math"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api/retention"
	"narwharf/hooks/dashboard/frame/frametest"
	"narwharf/hooks/series"
	"narwharf/narinfo"
)

const (
	hash  = "00000000000000000000000000000000"
	other = "11111111111111111111111111111111"
	full  = "/nix/store/" + hash + "-hello-2.12"
	why   = "GET /api/v1/why?path=%2Fnix%2Fstore%2F" + hash + "-hello-2.12"
)

var at = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// made is a cache, uploads and a past that are made up. by is what somebody calls himself.
type made struct {
	by    string
	next  string
	paths float64
}

func (m *made) Path(_ context.Context, h string) (*Path, error) {
	if h != hash {
		return nil, fs.ErrNotExist
	}
	i := &narinfo.Info{StoreDir: "/nix/store", Path: hash + "-hello-2.12", URL: "nar/x.nar.zst", Compression: "zstd", NarSize: 4096, FileSize: 1024, Deriver: other + "-hello.drv"}
	return &Path{Info: i, Store: "/nix/store", At: at, By: m.by, Sigs: []string{"key-1:AAAA"}, More: 7, References: []Found{{Hash: other, Path: "/nix/store/" + other + "-glibc"}},
		Referrers: []Found{{Hash: other, Path: "/nix/store/" + other + "-system"}}}, nil
}

func (m *made) Search(_ context.Context, _, after string, _ int) ([]Found, string, error) {
	if after != "" {
		return nil, "", nil
	}
	return []Found{{Hash: hash, Path: full, Size: 4096, At: at, By: m.by}}, m.next, nil
}

func (m *made) uploads(context.Context) ([]Sender, []Refusal, error) {
	return []Sender{{Name: m.by, Paths: 3, Bytes: 1 << 20, Refused: 1, Last: at}}, []Refusal{{At: at, Who: m.by, What: m.by, Status: 422, Words: m.by}}, nil
}

func (m *made) past(_ context.Context, group string, res series.Resolution) (*series.Table, error) {
	t := &series.Table{Step: res.Step}
	for i := range int(res.Slots) {
		t.Begin = append(t.Begin, at.Add(time.Duration(i)*res.Step))
	}
	fill := func(name string, v float64) {
		c := series.Values{Column: series.Column{Name: name}, Values: make([]float64, res.Slots)}
		for i := range c.Values {
			if c.Values[i] = math.NaN(); i > 3 {
				c.Values[i] = v
			}
		}
		t.Columns = append(t.Columns, c)
	}
	fill("paths", m.paths)
	fill("bytes", 3<<30)
	fill("narinfo.200", 3)
	fill("narinfo.404", 1)
	fill("sent.uploaded", 300<<20)
	return t, nil
}

func world(t *testing.T, m *made, scopes ...string) *frametest.World {
	w := frametest.New(t, scopes, Room(Options{Cache: m, Uploads: m.uploads, Past: m.past}))
	w.API["GET /api/v1/gc"] = retention.Status{Last: &retention.Result{Ended: at, Kept: retention.Sum{Paths: 5, Bytes: 5 << 20}, Over: 1 << 20}}
	w.API["GET /api/v1/pins"] = map[string]any{"pins": []retention.Pin{{Name: "release", Channel: "web", Seq: 3, Reason: m.by, By: m.by}}}
	w.API["GET /api/v1/du"] = retention.Usage{Of: []retention.Share{{Name: "channel:web", Own: retention.Sum{Bytes: 2 << 20}, Total: retention.Sum{Paths: 9, Bytes: 3 << 20}}, {Name: "pins"}}, Uploads: retention.Sum{Paths: 12}}
	w.API[why] = retention.Why{Path: full, Here: "upload", Roots: []retention.Chain{{Owner: "release:web:3", Paths: []string{"/nix/store/" + other + "-system", full}}}}
	return w
}

// TestCache: sizes, plots, who uploads, what was refused; the rest by right.
func TestCache(t *testing.T) {
	m := &made{by: "ci", paths: 100}
	a := world(t, m, "operate").See("/ui/cache", "75.0 % of 2288 lookups", "Bytes sent, by source", "1 MiB/s", "75 %", "channel web", "pins", "12 uploads", "Kept by releases", "release 3 of web",
		`Over the limits`, "Who uploads", `<span class="tag bad">422</span>`, `name="q"`, "90 days")
	if len(a.Text) > 120<<10 {
		t.Errorf("the page has %d bytes", len(a.Text))
	}
	world(t, m, "operate").See("/ui/cache?days=90", "<b>90 days</b>", "<span>Apr 15</span>") // by days
	w := world(t, m, "read:*")
	w.Absent("/ui/cache", "Kept by releases", "release 3 of web", `name="q"`)
	for _, path := range []string{"/ui/paths?q=x", "/ui/paths/" + hash} {
		if got := w.Get(path); got.Status != 403 {
			t.Errorf("%s: %d", path, got.Status)
		}
	}
	m.paths = 1e6
	w = world(t, m, "read:*")
	delete(w.API, "GET /api/v1/du")
	w.See("/ui/cache", `href="/ui/cache?sizes=1"`)
	if got := world(t, m, "read:web").Get("/ui/cache"); got.Status == 200 {
		t.Errorf("who sees one channel: %d", got.Status)
	}
}

// TestSearch: by name, in parts; by hash and by path.
func TestSearch(t *testing.T) {
	m := &made{by: "ci", next: other}
	w := world(t, m, "read:*", "pull")
	w.See("/ui/paths?q=hel", `href="/ui/paths/`+hash+`"`, full, "4 KiB", `href="/ui/paths?after=`+other+`&amp;q=hel"`)
	w.See("/ui/paths?q=hel&after="+other, "No other path is called so.")
	for _, q := range []string{hash, full, full + "/bin/hello", hash + ".narinfo", hash + "-hello-2.12"} {
		w.See("/ui/paths?q="+q, full)
	}
	w.See("/ui/paths?q="+other, "No path is called so.")
	w.See("/ui/paths", `name="q" value=""`)
	for _, bad := range []string{"/ui/paths?q=x&after=../x", "/ui/paths?q=" + strings.Repeat("x", 300)} {
		if got := w.Get(bad); got.Status != 400 {
			t.Errorf("%s: %d", bad, got.Status)
		}
	}
}

// TestPath: narinfo, signatures, references and referrers, files, log; why for those who may ask.
func TestPath(t *testing.T) {
	m := &made{by: "ci"}
	all := []string{"hello-2.12", "StorePath: " + full, "key-1:AAAA", `href="/serve/` + hash + `/"`, `href="/log/` + other + `-hello.drv"`, ">glibc<", ">system<", "and 7 more", "by ci"}
	world(t, m, "operate").See("/ui/paths/"+hash, append(all, "Why it is here", "release:web:3")...)
	w := world(t, m, "read:*", "pull")
	w.See("/ui/paths/"+hash, all...)
	w.Absent("/ui/paths/"+hash, "Why it is here")
	for path, status := range map[string]int{"/ui/paths/" + other: 404, "/ui/paths/x": 400, "/ui/paths/" + strings.Repeat("e", 32): 400} {
		if got := w.Get(path); got.Status != status {
			t.Errorf("%s: %d", path, got.Status)
		}
	}
}

// TestNasties: whatever clients call themselves and send.
func TestNasties(t *testing.T) {
	m := &made{paths: 1}
	w := world(t, m, "admin")
	for _, path := range []string{"/ui/cache", "/ui/paths?q=x"} {
		w.Nasties(path, func(text string) {
			m.by = text
			u, st, pin := retention.Usage{}, retention.Status{}, retention.Pin{Name: "x"}
			frametest.Fill(&u, text, nil)
			frametest.Fill(&st, text, func(field string) bool { return field == "Gone" })
			frametest.Fill(&pin, text, nil)
			w.API["GET /api/v1/du"], w.API["GET /api/v1/gc"], w.API["GET /api/v1/pins"] = u, st, map[string]any{"pins": []retention.Pin{pin}}
		})
	}
	w.Nasties("/ui/paths/"+hash, func(text string) {
		m.by = text
		y := retention.Why{}
		frametest.Fill(&y, text, nil)
		w.API[why] = y
	})
}

// A rate of a time that is not over is none.
func TestScaled(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct{ in, want []float64 }{{[]float64{nan, 600, 3}, []float64{nan, 2, nan}}, {[]float64{nan, nan, 300}, []float64{nan, nan, 1}}, {[]float64{300}, []float64{1}}, {nil, nil}} {
		got := scaled(c.in, 1/300.0)
		for i := range c.want {
			if got[i] != c.want[i] && !(math.IsNaN(got[i]) && math.IsNaN(c.want[i])) {
				t.Errorf("%v: %v", c.in, got)
			}
		}
	}
}
