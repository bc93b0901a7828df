package hooks

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/signing"
	"narwharf/signing/access"
)

// TestETagCoversTheBody: a channel's ETag is another when signatures were merged, with the same
// seq. A promote may send it or the seq alone, as yesterday's clients do, and a poll as well.
func TestETagCoversTheBody(t *testing.T) {
	w := newWorld(t)
	const path = "/api/v1/channels/web"
	second := newKey(t, "deploy-2")
	body := api.Promotion{Release: *w.release(w.head(1), w.entry("*", w.system("a"))), Keys: []string{w.key.Public().String(), second.Public().String()}, Threshold: 1}
	if absent := w.must(w.do("GET", path, "", nil), 404, api.NotFound); absent.header.Get("ETag") != `"0"` {
		t.Errorf("absent: ETag %s", absent.header.Get("ETag"))
	}
	w.must(w.do("PUT", path, w.ci, body, "If-Match", `"0"`), 200, "")
	before := w.must(w.do("GET", path, "", nil), 200, "")
	body.Head.Sign(signing.HeadKind, second)
	w.must(w.do("PUT", path, w.ci, body), 200, "")
	after := w.must(w.do("GET", path, "", nil), 200, "")
	old, now := before.header.Get("ETag"), after.header.Get("ETag")
	if before.body == after.body || old == now {
		t.Fatalf("%s and %s for bodies of which the second has one more signature:\n%s\n%s", old, now, before.body, after.body)
	}
	w.must(w.do("GET", path, "", nil, "If-None-Match", old), 200, "")
	for _, same := range []string{now, `"1"`, `W/"1"`, "*", `"x", ` + now} {
		if a := w.do("GET", path, "", nil, "If-None-Match", same); a.status != 304 || a.header.Get("ETag") != now {
			t.Errorf("If-None-Match: %s: %d with %s, want 304 with %s", same, a.status, a.header.Get("ETag"), now)
		}
	}
	w.restart()
	if again := w.do("GET", path, "", nil); again.header.Get("ETag") != now || again.body != after.body {
		t.Errorf("after a restart: %s", again.header.Get("ETag"))
	}
	b := w.system("b")
	for i, match := range []string{`"1"`, "", ""} {
		seq := i + 2
		if match == "" {
			match = w.do("GET", path, "", nil).header.Get("ETag")
		}
		for _, wrong := range []string{`"0"`, `"11-` + strings.Repeat("0", 16) + `"`, `"-1"`, `"` + fmt.Sprint(seq) + `-x"`, fmt.Sprint(seq - 1), `W/` + match} {
			w.must(w.do("PUT", path, w.ci, api.Promotion{Release: *w.release(w.head(int64(seq)), w.entry("*", b))}, "If-Match", wrong), 412, api.RaceLost)
		}
		w.must(w.do("PUT", path, w.ci, api.Promotion{Release: *w.release(w.head(int64(seq)), w.entry("*", b))}, "If-Match", match), 200, "")
	}
	w.must(w.do("DELETE", path, w.ci, nil, "If-Match", w.do("GET", path, "", nil).header.Get("ETag")), 204, "")
	if gone := w.must(w.do("GET", path, "", nil, "If-None-Match", now), 404, api.NotFound); gone.header.Get("ETag") != `"4"` {
		t.Errorf("deleted: ETag %s", gone.header.Get("ETag"))
	}
}

// TestWhatProxiesMayKeep: nothing of the API, at any of its routes, but a closure manifest that is
// there; and one for whose reading a right is needed not for others.
func TestWhatProxiesMayKeep(t *testing.T) {
	for name, kept := range map[string]string{"public": "public, max-age=31536000, immutable", "private": "private, max-age=31536000, immutable"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.system("a")
			w.promote(1, w.entry("*", p))
			if name == "private" {
				w.s.access = access.NewAuthenticator(access.Options{Tokens: w.tokens})
			}
			says := func(what, want string, a answer) {
				t.Helper()
				if cc := a.header.Values("Cache-Control"); !slices.Equal(cc, []string{want}) {
					t.Errorf("%s: %d with Cache-Control %q, want %q", what, a.status, cc, want)
				}
			}
			manifest := "/api/v1/closures/" + w.closureOf(p).Digest().Hex()
			paths := strings.NewReplacer(":channel", "web", ":host", "web-1", ":seq", "1", ":digest", strings.Repeat("ab", 32))
			for _, r := range Routes() {
				path := paths.Replace(r.Pattern)
				says(r.Name+" without a right", "no-store", w.do(r.Method, path, "", []byte("{}"), "Authorization", "Bearer x"))
				if r.Name != "channel-delete" {
					says(r.Name, "no-store", w.do(r.Method, path+"?channel=web", w.admin, []byte("{}")))
				}
				says(r.Name+", another method", "no-store", w.must(w.do("PROPFIND", path, w.admin, nil), 405, api.MethodNotAllowed))
				says(r.Name+", below", "no-store", w.do(r.Method, path+"/x/y", w.admin, nil))
			}
			found := w.must(w.do("GET", manifest, w.admin, nil), 200, "")
			says("manifest", kept, found)
			says("manifest, HEAD", kept, w.do("HEAD", manifest, w.admin, nil))
			if a := w.do("GET", manifest, w.admin, nil, "If-None-Match", found.header.Get("ETag")); a.status != 304 {
				t.Error(a)
			} else {
				says("manifest, 304", kept, a)
			}
			etag := w.do("GET", "/api/v1/channels/web", w.admin, nil).header.Get("ETag")
			says("a poll that ends", "no-store", w.do("GET", "/api/v1/channels/web", w.admin, nil, "If-None-Match", etag, "Prefer", "wait=1"))
			says("nowhere", "no-store", w.must(w.do("GET", "/api/v2/x", w.admin, nil), 404, api.NotFound))
		})
	}
}
