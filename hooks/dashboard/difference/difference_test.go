package difference

import (
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/hooks/api/plan"
	"narwharf/hooks/dashboard/frame/frametest"
)

const (
	of      = "GET /api/v1/channels/web/releases/4/difference"
	history = "GET /api/v1/channels/web/history?below=5&limit=20"
	page    = "/ui/channels/web/releases/4"

	channels = "GET /api/v1/channels"
)

func at(seq int64) any {
	return map[string]any{"channels": []api.Channel{{Channel: "web", Seq: seq}}}
}

func sample() plan.Difference {
	return plan.Difference{Channel: "web", Seq: 4, From: 2, LastGood: true, Meta: map[string]string{"rev": "abc", "run_url": "https://ci.example.org/7", "evil": "javascript:alert(1)"}, Unchanged: 3, Changes: []plan.Change{
		{Targets: []string{"web-1", "web-2"}, Count: 12, Before: "/nix/store/a-old", After: "/nix/store/b-new", Action: "switch", Was: 100 << 20, Is: 90 << 20, FetchPaths: 7, Fetch: 5 << 20, More: 2, Packages: []plan.Package{
			{Name: "glibc", Before: []string{"2.38"}, After: []string{"2.39"}, Bytes: -9 << 20}, {Name: "zlib", After: []string{"1.3"}, Bytes: 200 << 10},
			{Name: "curl", Before: []string{"8.7"}, Bytes: -300 << 10}, {Name: "openssl", Before: []string{"3.3"}, After: []string{"3.0"}, Older: true}, {Name: "etc", Before: []string{""}, After: []string{""}, Bytes: 10 << 10},
		}},
		{Targets: []string{"db-1"}, Count: 1, After: "/nix/store/c-db", Is: 1 << 20},
		{Targets: []string{"gone"}, Count: 1, Before: "/nix/store/d-gone"},
		{Targets: []string{"x"}, Count: 1, Before: "/nix/store/e-x", After: "/nix/store/f-x", Unknown: true},
	}}
}

// TestRelease: what differs, who promoted it, links, and the line to go back.
func TestRelease(t *testing.T) {
	w := frametest.New(t, []string{"read:*", "pull", "operate:web"}, Room())
	w.API[of] = sample()
	w.API[channels] = at(5)
	w.API[history] = map[string]any{"history": []api.HistoryItem{{Seq: 4, By: "ci"}, {Seq: 3}, {Seq: 2}}}
	a := w.See(page, "Release 4 of web", "by ci", `<a href="https://ci.example.org/7" rel="noreferrer">`, "release 2</a>, the last that completed well", "web-1, web-2 and 10 more",
		"100 MiB → 90 MiB unpacked (-10 MiB)", "7 paths, 5 MiB", "1 added", "1 removed", "1 updated", "1 older than before", "1 of another size", "2 packages with smaller",
		"New in this release", "Not in this release any more", "is not here any more", "3 targets as before", `<option value="3">release 3</option>`, "narwharf rollback web --to 4")
	if glibc, zlib := strings.Index(a.Text, ">glibc<"), strings.Index(a.Text, ">zlib<"); glibc > zlib {
		t.Error("the largest is not the first")
	}
	if strings.Contains(a.Text, `href="javascript`) {
		t.Errorf("%s", a.Text)
	}
	a = w.See(page+"?sort=name", `aria-sort="ascending"`)
	if curl, glibc := strings.Index(a.Text, ">curl<"), strings.Index(a.Text, ">glibc<"); curl > glibc {
		t.Error("they are not by name")
	}
	w.API[of+"?from=3"] = plan.Difference{Channel: "web", Seq: 4, From: 3, Unchanged: 5}
	w.See(page+"?from=3", "Nothing differs: 5 targets as before.", `<option value="3" selected>`)

	w.API[channels] = at(4)
	w.Absent(page, "narwharf rollback") // to where the channel is
	w.API[channels], w.API[history] = at(5), map[string]any{"history": []api.HistoryItem{{Seq: 4, By: "ci", Collected: true}}}
	w.Absent(page, "narwharf rollback") // its paths are gone
	w = frametest.New(t, []string{"read:*"}, Room())
	w.API[of], w.API[channels], w.API[history] = sample(), at(5), map[string]any{"history": []api.HistoryItem{{Seq: 4, By: "ci"}}}
	w.See(page, "by ci")
	w.Absent(page, "narwharf rollback")
	if got := frametest.New(t, []string{"read:db"}, Room()).Get(page); got.Status == 200 {
		t.Errorf("of another channel: %d", got.Status)
	}
}

// TestNasties: whatever a release says of itself.
func TestNasties(t *testing.T) {
	w := frametest.New(t, []string{"admin"}, Room())
	w.Nasties(page, func(text string) {
		d, item := sample(), api.HistoryItem{Seq: 4}
		frametest.Fill(&d, text, func(field string) bool { return field == "Channel" })
		frametest.Fill(&item, text, nil)
		w.API[channels] = at(4)
		w.API[of], w.API[history] = d, map[string]any{"history": []api.HistoryItem{item}}
	})
}
