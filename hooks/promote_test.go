package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/policy"
	"narwharf/narinfo"
	"narwharf/signing"
)

func TestPromote(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	got := decode[api.Promoted](t, w.promote(1, w.entry("*", a)))
	if got.Seq != 1 || len(got.Changed) != 1 || got.Changed[0].To != a.In("/nix/store") || got.Changed[0].Paths != 3 || got.Changed[0].FetchPaths != 3 || got.Changed[0].Fetch != 300 {
		t.Errorf("promoted %+v", got)
	}
	ch := w.do("GET", "/api/v1/channels/web", "", nil)
	w.must(ch, 200, "", a.In("/nix/store")[:0])
	if etag := ch.header.Get("ETag"); !regexp.MustCompile(`^"1-[0-9a-f]{16}"$`).MatchString(etag) {
		t.Errorf("ETag %s, want the seq and a hash", etag)
	}
	c := decode[api.Channel](t, ch)
	if c.Seq != 1 || c.By != "ci" || c.Kind != api.KindNixOS || c.Threshold != 1 || len(c.Keys) != 1 || c.Release == nil {
		t.Errorf("channel %+v", c)
	}
	if text := w.must(w.do("GET", "/api/v1/channels/web/store-path", "", nil), 200, "").body; text != a.In("/nix/store")+"\n" {
		t.Errorf("store-path %q", text)
	}
	m := w.closureOf(a)
	if text := w.must(w.do("GET", "/api/v1/closures/"+m.Digest().Hex(), "", nil), 200, "").body; text != string(m.Text()) {
		t.Errorf("manifest %q", text)
	}
}

// TestPromoteRefusals takes each check, and sees that nothing was changed.
func TestPromoteRefusals(t *testing.T) {
	w := newWorld(t)
	a, b := w.system("a"), w.system("b")
	w.must(w.promoteAs(w.ci, 0, w.release(w.head(5), w.entry("*", a))), 200, "") // a first seq need not be 1
	order := func(n int64) *int64 { return &n }
	h := w.head(6)
	h.Order = order(100)
	w.must(w.promoteAs(w.ci, 5, w.release(h, w.entry("*", a))), 200, "")
	before := w.do("GET", "/api/v1/channels/web", "", nil).body

	good := w.release(w.head(7), w.entry("*", b))
	other := newKey(t, "other")
	unsigned, err := signing.NewRelease(w.head(7), []signing.Entry{w.entry("*", b)}, other)
	if err != nil {
		t.Fatal(err)
	}
	notSystem := w.put("not-a-system")
	incomplete := w.system("incomplete")
	entryIncomplete := w.entry("*", incomplete)
	for p := range w.cache.infos {
		if strings.HasSuffix(string(w.cache.infos[p].Path), "-incomplete-lib") {
			delete(w.cache.infos, p)
		}
	}
	bytesGone := w.system("bytes-gone")
	w.cache.lost[bytesGone] = true
	wrongSystem := w.entry("*", b)
	wrongSystem.System = "aarch64-linux"
	old := w.head(7)
	old.Order = order(99)
	jump := w.head(6 + signing.MaxSeqJump + 1)
	elsewhere := w.head(7)
	elsewhere.Origin = "cache.example.org/other"
	channel := w.head(7)
	channel.Channel = "db"
	tampered := w.release(w.head(7), w.entry("*", b))
	tampered.Entries[0] = w.release(w.head(7), w.entry("*", a)).Entries[0]

	for name, c := range map[string]struct {
		a      answer
		status int
		kind   api.Kind
		words  string
	}{
		"anonymous":         {w.promoteAs("", 6, good), 401, api.Unauthorized, "promote:web"},
		"another scope":     {w.promoteAs(w.op, 6, good), 403, api.Forbidden, "promote:web"},
		"no If-Match":       {w.do("PUT", "/api/v1/channels/web", w.ci, api.Promotion{Release: *good}), 428, api.NoPrecondition, "If-Match"},
		"race lost":         {w.promoteAs(w.ci, 5, good), 412, api.RaceLost, "seq 6"},
		"empty object":      {w.do("PUT", "/api/v1/channels/web", w.ci, []byte("{}"), "If-Match", `"6"`), 400, api.BadRequest, "head"},
		"no JSON":           {w.do("PUT", "/api/v1/channels/web", w.ci, []byte("promote!"), "If-Match", `"6"`), 400, api.BadRequest, "JSON"},
		"bad channel":       {w.do("PUT", "/api/v1/channels/Web", w.admin, api.Promotion{Release: *good}), 400, api.BadRequest, "channel name"},
		"another channel":   {w.promoteAs(w.ci, 6, w.release(channel, w.entry("*", b))), 422, api.Invalid, "db"},
		"another origin":    {w.promoteAs(w.ci, 6, w.release(elsewhere, w.entry("*", b))), 422, api.Invalid, "origin"},
		"another key":       {w.promoteAs(w.ci, 6, unsigned), 422, api.BadSignature, "deploy-1"},
		"tampered entry":    {w.promoteAs(w.ci, 6, tampered), 422, api.Invalid, "root"},
		"seq used":          {w.promoteAs(w.ci, 6, w.release(w.head(6), w.entry("*", b))), 409, api.SeqConflict, "not above 6"},
		"seq lower":         {w.promoteAs(w.ci, 6, w.release(w.head(5), w.entry("*", b))), 409, api.SeqConflict, "not above 6"},
		"seq jumps":         {w.promoteAs(w.ci, 6, w.release(jump, w.entry("*", b))), 409, api.SeqConflict, "more than"},
		"order backwards":   {w.promoteAs(w.ci, 6, w.release(old, w.entry("*", b))), 409, api.OrderBackwards, "rollback"},
		"incomplete":        {w.promoteAs(w.ci, 6, w.release(w.head(7), entryIncomplete)), 422, api.ClosureIncomplete, "incomplete-lib"},
		"bytes gone":        {w.promoteAs(w.ci, 6, w.release(w.head(7), w.entry("*", bytesGone))), 422, api.ClosureIncomplete, "bytes-gone"},
		"not a system":      {w.promoteAs(w.ci, 6, w.release(w.head(7), w.entry("*", notSystem))), 422, api.NotASystem, "nixos-version"},
		"system of another": {w.promoteAs(w.ci, 6, w.release(w.head(7), wrongSystem)), 422, api.NotASystem, "aarch64"},
	} {
		t.Run(name, func(t *testing.T) {
			ww := *w
			ww.t = t
			ww.must(c.a, c.status, c.kind, c.words)
		})
	}
	if after := w.do("GET", "/api/v1/channels/web", "", nil).body; after != before {
		t.Errorf("refusals changed the channel:\n%s\n%s", before, after)
	}
	// What is refused for its order goes through as a rollback.
	old.Rollback = true
	w.must(w.promoteAs(w.ci, 6, w.release(old, w.entry("*", b))), 200, "")
}

// TestClosureDiffers: the promoter's bytes are not the cache's.
func TestClosureDiffers(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	theirs := w.closureOf(a)
	e := w.entry("*", a)
	// Somebody else's build of the library got here first.
	var lib *narinfo.Info
	for _, i := range w.cache.infos {
		if strings.HasSuffix(string(i.Path), "-a-lib") {
			lib = i.Clone()
		}
	}
	lib.NarHash[0] ^= 1
	w.cache.infos[lib.Path.Hash()] = lib
	r := w.release(w.head(1), e)
	got := w.must(w.promoteAs(w.ci, 0, r), 422, api.ManifestMissing)
	if len(got.err.Closures) != 1 || got.err.Closures[0] != theirs.Digest().String() {
		t.Fatalf("closures %v", got.err.Closures)
	}
	w.must(w.do("PUT", "/api/v1/closures/"+theirs.Digest().Hex(), w.ci, theirs.Text()), 201, "")
	got = w.must(w.promoteAs(w.ci, 0, r), 422, api.ClosureDiffers, "always-allow-substitutes", "--adopt", "ci-7")
	if len(got.err.Differs) != 1 {
		t.Fatalf("differs %+v", got.err.Differs)
	}
	d := got.err.Differs[0]
	if d.StorePath != lib.Path.In("/nix/store") || d.Ours != string(lib.AppendFingerprint(nil)) || d.Yours == d.Ours || d.UploadedBy != "ci-7" {
		t.Errorf("difference %+v", d)
	}
	// Taking the cache's line is the way out.
	w.promote(1, w.entry("*", a))
}

func TestPutClosureRefusals(t *testing.T) {
	w := newWorld(t)
	m := w.closureOf(w.system("a"))
	at := "/api/v1/closures/" + m.Digest().Hex()
	w.must(w.do("PUT", at, "", m.Text()), 401, api.Unauthorized)
	w.must(w.do("PUT", at, w.host, m.Text()), 403, api.Forbidden)
	w.must(w.do("PUT", at, w.ci, []byte("{}")), 400, api.BadRequest)
	w.must(w.do("PUT", at, w.ci, nil), 400, api.BadRequest)
	w.must(w.do("PUT", "/api/v1/closures/abc", w.ci, m.Text()), 400, api.BadRequest)
	w.must(w.do("PUT", at, w.ci, append(m.Text(), "x\n"...)), 422, api.Invalid)
	w.must(w.do("PUT", "/api/v1/closures/"+strings.Repeat("0", 64), w.ci, m.Text()), 422, api.Invalid)
	w.must(w.do("GET", at, "", nil), 404, api.NotFound)
	w.must(w.do("PUT", at, w.ci, m.Text()), 201, "")
	w.must(w.do("PUT", at, w.ci, m.Text()), 201, "")
	w.must(w.do("GET", at, "", nil), 200, "")
}

func TestIdempotentAndMerge(t *testing.T) {
	w := newWorld(t)
	second := newKey(t, "deploy-2")
	a := w.system("a")
	r := w.release(w.head(1), w.entry("*", a))
	body := api.Promotion{Release: *r, Keys: []string{w.key.Public().String(), second.Public().String()}, Threshold: 2}
	put := func(b api.Promotion) answer {
		return w.do("PUT", "/api/v1/channels/web", w.ci, b, "If-Match", `"0"`)
	}
	w.must(put(body), 422, api.BadSignature, "1 of the 2")
	body.Head.Sign(signing.HeadKind, second)
	w.must(put(body), 200, "")
	again := decode[api.Promoted](t, w.must(put(body), 200, ""))
	if !again.Already || again.Seq != 1 {
		t.Errorf("again %+v", again)
	}
	// A stranger's signature is not added to what is there.
	body.Head.Sign(signing.HeadKind, newKey(t, "stranger"))
	w.must(put(body), 200, "")
	w.restart()
	c := decode[api.Channel](t, w.do("GET", "/api/v1/channels/web", "", nil))
	if n := len(c.Release.Head.Signatures); n != 2 {
		t.Errorf("%d signatures after a restart, want 2", n)
	}
	// One of two is not enough for the next, and changing that needs admin.
	r2 := w.release(w.head(2), w.entry("*", a))
	w.must(w.do("PUT", "/api/v1/channels/web", w.ci, api.Promotion{Release: *r2}, "If-Match", `"1"`), 422, api.BadSignature)
	change := api.Promotion{Release: *r2, Keys: []string{w.key.Public().String()}, Threshold: 1}
	w.must(w.do("PUT", "/api/v1/channels/web", w.ci, change, "If-Match", `"1"`), 403, api.Forbidden, "keys")
	w.must(w.do("PUT", "/api/v1/channels/web", w.admin, change, "If-Match", `"1"`), 200, "")
}

func TestDryRun(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	r := w.release(w.head(1), w.entry("*", a))
	body := api.Promotion{Release: *r, Keys: []string{w.key.Public().String()}}
	got := decode[api.Promoted](t, w.must(w.do("PUT", "/api/v1/channels/web?dry_run=1", w.ci, body, "If-Match", `"0"`), 200, ""))
	if !got.DryRun || len(got.Changed) != 1 {
		t.Errorf("dry run %+v", got)
	}
	w.must(w.do("GET", "/api/v1/channels/web", "", nil), 404, api.NotFound)
	if len(w.files.files) != 0 {
		t.Errorf("a dry run wrote %d files", len(w.files.files))
	}
}

// TestMergeLater: a signature by a third key of the channel is added to a
// release that two had made valid, also in its file.
func TestMergeLater(t *testing.T) {
	w := newWorld(t)
	keys := []signing.SecretKey{w.key, newKey(t, "deploy-2"), newKey(t, "deploy-3")}
	body := api.Promotion{Release: *w.release(w.head(1), w.entry("*", w.system("a"))), Threshold: 2}
	for _, k := range keys {
		body.Keys = append(body.Keys, k.Public().String())
	}
	body.Head.Sign(signing.HeadKind, keys[1])
	w.must(w.do("PUT", "/api/v1/channels/web", w.ci, body, "If-Match", `"0"`), 200, "")
	body.Head.Sign(signing.HeadKind, keys[2])
	w.must(w.do("PUT", "/api/v1/channels/web", w.ci, body), 200, "")
	w.restart()
	c := decode[api.Channel](t, w.do("GET", "/api/v1/channels/web", "", nil))
	if n := len(c.Release.Head.Signatures); n != 3 {
		t.Errorf("%d signatures after a restart, want 3", n)
	}
}

// TestRace: of promoters who saw the same state one wins.
func TestRace(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	w.promote(1, w.entry("*", a))
	var wg sync.WaitGroup
	results := make([]answer, 8)
	for i := range results {
		h := w.head(2)
		h.Meta = map[string]string{"run": string(rune('a' + i))}
		r := w.release(h, w.entry("*", a))
		wg.Add(1)
		go func() {
			defer wg.Done()
			results[i], _ = w.try("PUT", "/api/v1/channels/web", w.ci, api.Promotion{Release: *r}, "If-Match", `"1"`)
		}()
	}
	wg.Wait()
	won := 0
	for _, a := range results {
		switch {
		case a.status == 200:
			won++
		case a.status != 412 || a.err.Channel == nil || a.err.Channel.Seq != 2:
			t.Errorf("loser got %s", a)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
}

func TestABAHistoryAndRelease(t *testing.T) {
	w := newWorld(t)
	a, b := w.system("a"), w.system("b")
	w.promote(1, w.entry("*", a))
	w.promote(2, w.entry("*", b))
	h := w.head(3)
	h.Rollback = true
	w.must(w.promoteAs(w.ci, 2, w.release(h, w.entry("*", a))), 200, "")
	if text := w.do("GET", "/api/v1/channels/web/store-path", "", nil).body; strings.TrimSpace(text) != a.In("/nix/store") {
		t.Errorf("A, B, A ends on %q", text)
	}
	hist := decode[struct{ History []api.HistoryItem }](t, w.must(w.do("GET", "/api/v1/channels/web/history", "", nil), 200, ""))
	if len(hist.History) != 3 || hist.History[0].Seq != 3 || !hist.History[0].Rollback || hist.History[1].Targets[0].StorePath != b.In("/nix/store") || hist.History[2].By != "ci" {
		t.Errorf("history %+v", hist)
	}
	if one := decode[struct{ History []api.HistoryItem }](t, w.do("GET", "/api/v1/channels/web/history?limit=1", "", nil)); len(one.History) != 1 {
		t.Errorf("limit=1 gives %d", len(one.History))
	}
	w.must(w.do("GET", "/api/v1/channels/web/history?limit=0", "", nil), 400, api.BadRequest)
	w.must(w.do("GET", "/api/v1/channels/none/history", "", nil), 404, api.NotFound)
	r := decode[signing.Release](t, w.must(w.do("GET", "/api/v1/channels/web/releases/2", "", nil), 200, ""))
	if head, _, err := r.Check(); err != nil || head.Seq != 2 {
		t.Errorf("release 2: %v %v", head, err)
	}
	w.must(w.do("GET", "/api/v1/channels/web/releases/9", "", nil), 404, api.NotFound)
	w.must(w.do("GET", "/api/v1/channels/web/releases/x", "", nil), 400, api.BadRequest)
}

func TestTargets(t *testing.T) {
	w := newWorld(t)
	a, b := w.system("a"), w.system("b")
	w.promote(1, w.entry("db-1", a), w.entry("web-1", a), w.entry("web-2", a))
	got := decode[api.Promoted](t, w.promote(2, w.entry("web-1", b), w.entry("web-2", a), w.entry("web-3", b)))
	if got.Unchanged != 1 || len(got.Changed) != 2 || len(got.Removed) != 1 || got.Removed[0] != "db-1" {
		t.Errorf("promoted %+v", got)
	}
	for target, want := range map[string]narinfo.Path{"web-1": b, "web-2": a, "web-3": b} {
		if text := w.do("GET", "/api/v1/channels/web/store-path?target="+target, "", nil).body; strings.TrimSpace(text) != want.In("/nix/store") {
			t.Errorf("%s gets %s", target, text)
		}
	}
	w.must(w.do("GET", "/api/v1/channels/web/store-path?target=db-1", "", nil), 404, api.NotFound)
	w.must(w.do("GET", "/api/v1/channels/web/store-path", "", nil), 400, api.BadRequest, "target=")
}

func TestDeleteKeepsSeq(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	missing := w.must(w.do("GET", "/api/v1/channels/web", "", nil), 404, api.NotFound)
	if missing.header.Get("ETag") != `"0"` {
		t.Errorf("an absent channel has ETag %s", missing.header.Get("ETag"))
	}
	w.must(w.promoteAs(w.ci, 0, w.release(w.head(7), w.entry("*", a))), 200, "")
	w.must(w.do("DELETE", "/api/v1/channels/web", w.ci, nil), 428, api.NoPrecondition)
	w.must(w.do("DELETE", "/api/v1/channels/web", w.ci, nil, "If-Match", `"6"`), 412, api.RaceLost)
	w.must(w.do("DELETE", "/api/v1/channels/web", w.op, nil, "If-Match", `"7"`), 403, api.Forbidden)
	w.must(w.do("DELETE", "/api/v1/channels/web", w.ci, nil, "If-Match", `"7"`), 204, "")
	w.must(w.do("DELETE", "/api/v1/channels/web", w.ci, nil, "If-Match", `"7"`), 404, api.NotFound)
	w.restart()
	gone := w.must(w.do("GET", "/api/v1/channels/web", "", nil), 404, api.NotFound, "deleted")
	if gone.err.Channel == nil || gone.err.Channel.Seq != 7 || gone.header.Get("ETag") != `"7"` {
		t.Errorf("deleted channel: %s, %s", gone, gone.header.Get("ETag"))
	}
	w.must(w.promoteAs(w.ci, 7, w.release(w.head(7), w.entry("*", a))), 409, api.SeqConflict)
	w.must(w.promoteAs(w.ci, 7, w.release(w.head(8), w.entry("*", a))), 200, "")
}

// TestFullDisk: a release that cannot be stored is not promoted.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	a, b := w.system("a"), w.system("b")
	w.promote(1, w.entry("*", a))
	w.files.fail = errors.New("no space left on device")
	w.must(w.promoteAs(w.ci, 1, w.release(w.head(2), w.entry("*", b))), 500, api.Internal)
	w.files.fail = nil
	if c := decode[api.Channel](t, w.do("GET", "/api/v1/channels/web", "", nil)); c.Seq != 1 {
		t.Errorf("seq %d after a failed write", c.Seq)
	}
	w.promote(2, w.entry("*", b))
}

// TestRestore: a database that was lost comes back from the files.
func TestRestore(t *testing.T) {
	w := newWorld(t)
	a, b := w.system("a"), w.system("b")
	w.promote(1, w.entry("*", a))
	w.promote(2, w.entry("web-1", b))
	db := w.head(3)
	db.Channel, db.Origin = "db", "cache.example.org/db"
	dbRelease := w.release(db, w.entry("*", a))
	w.must(w.do("PUT", "/api/v1/channels/db", w.admin, api.Promotion{Release: *dbRelease, Keys: []string{w.key.Public().String()}}, "If-Match", `"0"`), 200, "")
	w.must(w.do("DELETE", "/api/v1/channels/db", w.admin, nil, "If-Match", `"3"`), 204, "")
	want := decode[api.Channel](t, w.do("GET", "/api/v1/channels/web", "", nil))
	w.must(w.setPolicy(policy.Channel{RebootSlots: 3}), 200, "")
	w.must(w.setPolicy(policy.Channel{RebootSlots: 2}), 200, "")

	w.stop()
	w.path += ".new"
	w.start()
	w.must(w.do("GET", "/api/v1/channels/web", "", nil), 404, api.NotFound)
	channels, releases, err := w.s.Restore(t.Context(), t.Logf)
	if err != nil || channels != 2 || releases != 3 {
		t.Errorf("restored %d channels, %d releases, %v; want 2, 3", channels, releases, err)
	}
	got := decode[api.Channel](t, w.must(w.do("GET", "/api/v1/channels/web", "", nil), 200, ""))
	if got.Seq != want.Seq || !got.Release.Same(want.Release) || got.Threshold != 1 || got.Keys[0] != want.Keys[0] {
		t.Errorf("restored %+v, want %+v", got, want)
	}
	// When it was promoted is not in the files; when it was made is.
	head, _, err := want.Release.Check()
	if err != nil {
		t.Fatal(err)
	}
	made := func() {
		t.Helper()
		items := decode[struct{ History []api.HistoryItem }](t, w.do("GET", "/api/v1/channels/web/history", "", nil)).History
		for _, h := range items {
			if h.By != "" || !h.Promoted.Equal(h.Created) {
				t.Errorf("seq %d: promoted %v by %q, made %v", h.Seq, h.Promoted, h.By, h.Created)
			}
		}
		list := decode[struct{ Channels []api.Channel }](t, w.do("GET", "/api/v1/channels", "", nil)).Channels
		got := decode[api.Channel](t, w.do("GET", "/api/v1/channels/web", "", nil))
		if !got.Promoted.Equal(head.Created) || got.By != "" || len(items) != 2 || !list[1].Promoted.Equal(head.Created) {
			t.Errorf("promoted %v by %q, made %v", got.Promoted, got.By, head.Created)
		}
	}
	made()
	w.restart()
	made()
	w.must(w.do("GET", policyPath, w.op, nil), 200, "", `{"reboot_slots":2}`)
	gone := w.must(w.do("GET", "/api/v1/channels/db", "", nil), 404, api.NotFound)
	if gone.err.Channel.Seq != 3 || !gone.err.Channel.Deleted {
		t.Errorf("a deleted channel came back as %+v", gone.err.Channel)
	}
	if _, releases, err := w.s.Restore(t.Context(), t.Logf); err != nil || releases != 0 {
		t.Errorf("a second restore adds %d releases (%v)", releases, err)
	}
	w.must(w.promoteAs(w.ci, 2, w.release(w.head(3), w.entry("*", a))), 200, "")
}

func TestKindPath(t *testing.T) {
	w := newWorld(t)
	p := w.put("some-tool")
	r := w.release(w.head(1), w.entry("*", p))
	body := api.Promotion{Release: *r, Keys: []string{w.key.Public().String()}, Kind: api.KindPath}
	w.must(w.do("PUT", "/api/v1/channels/web", w.ci, body, "If-Match", `"0"`), 200, "")
	body.Kind = "nonsense"
	w.must(w.do("PUT", "/api/v1/channels/web", w.ci, body, "If-Match", `"1"`), 422, api.Invalid, "nonsense")
}

func TestEventsOfPromote(t *testing.T) {
	w := newWorld(t)
	start := time.Now().Add(-time.Second)
	w.promote(1, w.entry("*", w.system("a")))
	w.must(w.do("GET", "/api/v1/events?channel=web", "", nil), 401, api.Unauthorized)
	w.must(w.do("GET", "/api/v1/events?channel=db", w.ci, nil), 403, api.Forbidden)
	w.must(w.do("GET", "/api/v1/events", w.host, nil), 403, api.Forbidden)
	w.must(w.do("GET", "/api/v1/events?since=x", w.op, nil), 400, api.BadRequest)
	page := decode[struct {
		Events []api.Event
		Next   int64
	}](t, w.must(w.do("GET", "/api/v1/events?channel=web", w.ci, nil), 200, ""))
	if len(page.Events) != 1 || page.Next != 4 { // the others are that ci and the host were refused
		t.Fatalf("events %+v", page)
	}
	if e := page.Events[0]; e.ID != 1 || e.Kind != "channel.promoted" || e.By != "ci" || e.Seq != 1 || e.Time.Before(start) {
		t.Errorf("event %+v", e)
	}
}

// TestPromoteAdopts: before a release is recorded the cache keeps all paths of
// its closures; a dry run keeps nothing, and what cannot be kept is no release.
func TestPromoteAdopts(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	release := w.release(w.head(1), w.entry("*", a))
	for name, c := range map[string]struct {
		err    error
		status int
		kind   api.Kind
	}{
		"altered on the disk": {refusal("broken"), 422, api.ClosureIncomplete},
		"uploaded meanwhile":  {refusal("conflict"), 422, api.ClosureDiffers},
		"store unreadable":    {refusal("unavailable"), 503, api.Unavailable},
		"disk":                {errors.New("input/output error"), 500, api.Internal},
	} {
		w.cache.adopting = func(context.Context) error { return c.err }
		w.must(w.promoteAs(w.ci, 0, release), c.status, c.kind)
		if got := w.do("GET", "/api/v1/channels/web", "", nil); got.status != 404 {
			t.Errorf("%s: the release is there: %s", name, got.body)
		}
	}
	w.cache.adopting = nil
	promotion := api.Promotion{Release: *release, Keys: []string{w.key.Public().String()}, Threshold: 1}
	w.must(w.do("PUT", "/api/v1/channels/web?dry_run=1", w.ci, promotion, "If-Match", `"0"`), 200, "")
	if len(w.cache.adopted) > 0 {
		t.Errorf("a dry run adopts %v", w.cache.adopted)
	}
	w.must(w.promoteAs(w.ci, 0, release), 200, "")
	var want []narinfo.Path
	for _, l := range w.closureOf(a).Lines {
		want = append(want, l.Path)
	}
	if !slices.Equal(w.cache.adopted, want) || w.cache.adoptedBy != "adopted for channel web" {
		t.Errorf("%q: %v, want %v", w.cache.adoptedBy, w.cache.adopted, want)
	}
}

// TestPromoteLooksAgain: what changed while it was adopted is no release.
func TestPromoteLooksAgain(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	release := w.release(w.head(1), w.entry("*", a))
	w.cache.adopting = func(context.Context) error { // holds the cache's lock
		i := w.cache.infos[a.Hash()].Clone()
		i.NarHash[0]++
		w.cache.infos[a.Hash()] = i
		return nil
	}
	w.must(w.promoteAs(w.ci, 0, release), 422, api.ManifestMissing)
	if got := w.do("GET", "/api/v1/channels/web", "", nil); got.status != 404 {
		t.Errorf("the release is there: %s", got.body)
	}
}

// refusal is one of the cache, by its word.
type refusal string

func (r refusal) Error() string     { return "the cache says no" }
func (r refusal) Conflict() bool    { return r == "conflict" }
func (r refusal) Unavailable() bool { return r == "unavailable" }

// TestPromoteAdoptsForNobody: a promoter who is gone does not end it, a server
// that stops does.
func TestPromoteAdoptsForNobody(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	begun, goOn := make(chan struct{}), make(chan struct{})
	w.cache.adopting = func(ctx context.Context) error {
		close(begun)
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	release := w.release(w.head(1), w.entry("*", a))
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		text, err := json.Marshal(api.Promotion{Release: *release, Keys: []string{w.key.Public().String()}, Threshold: 1})
		if err != nil {
			t.Error(err)
			return
		}
		req, err := http.NewRequestWithContext(ctx, "PUT", w.http.URL+"/api/v1/channels/web", bytes.NewReader(text))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+w.ci)
		req.Header.Set("If-Match", `"0"`)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			t.Errorf("answered %s", resp.Status)
		}
	}()
	<-begun
	leave()
	<-done
	close(goOn)
	for range 1000 {
		if w.do("GET", "/api/v1/channels/web", "", nil).status == 200 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.cache.adopting = nil
	again := decode[api.Promoted](t, w.must(w.promoteAs(w.ci, 0, release), 200, ""))
	if !again.Already {
		t.Errorf("the second promote says %+v", again)
	}

	w.cache.adopting = func(ctx context.Context) error {
		w.s.Stop()
		<-ctx.Done()
		return ctx.Err()
	}
	w.must(w.promoteAs(w.ci, 1, w.release(w.head(2), w.entry("*", w.system("b")))), 503, api.Unavailable)
}
