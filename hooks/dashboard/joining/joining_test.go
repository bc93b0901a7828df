package joining

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/frame/frametest"
)

const key = "SHA256:0000000000000000000000000000000000000000A/0"

func world(t *testing.T, scopes ...string) *frametest.World {
	w := frametest.New(t, scopes, Room())
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	w.API["GET /api/v1/asks"] = map[string]any{"asks": []api.Ask{
		{Host: "web-7", Key: key, Channel: "web", Address: "192.0.2.7", Since: at},
		{Host: "db-1", Key: key + "x", Channel: "db", Since: at, RefusedBy: "ada"},
	}}
	w.API["GET /api/v1/hosts/web-7"] = api.Host{Host: "web-7", Conflict: []api.Claim{{Instance: strings.Repeat("a", 32)}}}
	return w
}

// Who operates a channel answers what machines ask that want to be of it; who may look sees it.
func TestAsks(t *testing.T) {
	approve, refuse := "/ui/hosts/web-7/approve?key="+url.QueryEscape(key), "/ui/hosts/web-7/refuse?key="+url.QueryEscape(key)
	w := world(t, "operate:web")
	w.See(Home, "web-7", key, "192.0.2.7", approve, refuse, "refused</span> by ada", "<title>(1) ")
	w.Absent(Home, "/ui/hosts/db-1/approve")
	world(t, "read:web").Absent(Home, "/approve", "/refuse")
	if a := world(t, "pull").Get(Home); a.Status != 401 && a.Status != 303 {
		t.Errorf("without a right: %d", a.Status)
	}
	w.See(approve, key, "ssh-keygen -lf", "192.0.2.7")
	w.See(refuse, key, "Refuse")
	for _, path := range []string{"approve", "refuse"} {
		if a := w.Post("/ui/hosts/web-7/"+path, url.Values{"key": {key}}); a.Status != 303 || a.To != Home {
			t.Errorf("%s: %+v", path, a)
		}
	}
	if a := w.Get("/ui/hosts/web-7/approve?key=other"); a.Status != 404 {
		t.Errorf("of a key that nobody has: %d", a.Status)
	}
	claims := "/ui/hosts/web-7/approve?instance=" + strings.Repeat("a", 32)
	w.See(claims, "refused from then on", strings.Repeat("a", 32))
	w.See("/ui/hosts/web-7/approve?instance=b", "does not claim the name any more")
	if a := w.Post(claims, url.Values{"instance": {strings.Repeat("a", 32)}}); a.To != "/ui/hosts/web-7" {
		t.Errorf("%+v", a)
	}
	want := []string{
		`POST /api/v1/hosts/web-7/approve {"key":"` + key + `"}`, `POST /api/v1/hosts/web-7/refuse {"key":"` + key + `"}`,
		`POST /api/v1/hosts/web-7/approve {"instance":"` + strings.Repeat("a", 32) + `"}`,
	}
	if strings.Join(w.Sent, "\n") != strings.Join(want, "\n") {
		t.Errorf("sent %q", w.Sent)
	}
}

func TestNasties(t *testing.T) {
	w := world(t, "operate")
	w.Nasties(Home, func(text string) {
		a := api.Ask{}
		frametest.Fill(&a, text, func(field string) bool { return field == "Channel" })
		w.API["GET /api/v1/asks"] = map[string]any{"asks": []api.Ask{a}}
	})
}
