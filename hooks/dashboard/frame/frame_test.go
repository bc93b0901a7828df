package frame_test

import (
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/frame/frametest"
	"narwharf/hooks/rights"
	"narwharf/signing/access/scope"
)

// room is two views, and a button that asks for everything that one can ask for.
func room(did *frame.Answer, err *error) *frame.Room {
	page := func(title string) func(*frame.Request) (*frame.Page, error) {
		return func(*frame.Request) (*frame.Page, error) { return &frame.Page{Title: title, Body: "body"}, nil }
	}
	return &frame.Room{
		Files: fstest.MapFS{"a.html": {Data: []byte(`{{define "body"}}the body{{end}}`)}},
		Views: []frame.View{
			{Path: frame.Path, Nav: "Overview", Needs: rights.ReadsAny, Load: page("All")},
			{Path: "/ui/channels/{channel}", Needs: rights.Reads(scope.InPath), Load: page("One")},
			{Path: "/ui/admin", Nav: "Secrets", Needs: rights.Admins, Load: page("Secrets")},
		},
		Actions: []frame.Action{{
			Path: "/ui/channels/{channel}/stop", Needs: rights.Operates(scope.InPath),
			Ask: func(r *frame.Request) (*frame.Question, error) {
				return &frame.Question{Title: "Stop " + r.Param("channel"), Text: "It stops.", Button: "Stop", Danger: true, Reason: frame.MustReason, For: true, Keep: map[string]string{"seq": "7"}, Back: frame.Path}, nil
			},
			Do: func(_ *frame.Request, a *frame.Answer) (string, error) {
				*did = *a
				return "/ui/channels/web", *err
			},
		}},
	}
}

func world(t *testing.T, scopes ...string) (w *frametest.World, did *frame.Answer, fails *error) {
	did, fails = new(frame.Answer), new(error)
	return frametest.New(t, scopes, room(did, fails)), did, fails
}

// Who may not look is sent to log in or refused in words; the navigation has what one may look at.
func TestWhoMayLook(t *testing.T) {
	w, _, _ := world(t, "operate:web")
	w.See(frame.Path, "the body", ">Overview</a>", `aria-current="page"`, `lang="en"`, `href="#main"`)
	w.Absent(frame.Path, "Secrets")
	w.See("/ui/channels/web", "the body")
	for path, status := range map[string]int{"/ui/channels/UP": 400, "/ui/none": 404, "/ui/admin": 303, "/ui/channels/db": 303} {
		if a := w.Get(path); a.Status != status || status == 303 && a.To != "/ui/login?next="+url.QueryEscape(path) || status != 303 && !strings.Contains(a.Text, `role="alert"`) {
			t.Errorf("%s: %d to %q", path, a.Status, a.To)
		}
	}
	if a := w.Post("/ui/channels/web", nil); a.Status != 405 {
		t.Errorf("a form to a view: %d", a.Status)
	}
}

// A button asks, wants to know why, keeps what was seen and what was said, and says what came of it.
func TestAction(t *testing.T) {
	w, did, fails := world(t, "operate:web")
	const path = "/ui/channels/web/stop"
	w.See(path, "Stop web", "It stops.", `name="seq" value="7"`, "required", `<option value="4h">`, `class="danger"`)
	if a := w.Post(path, url.Values{"reason": {" \n"}}); a.Status != 400 || !strings.Contains(a.Text, "Say why") || did.Form != nil {
		t.Errorf("without a reason: %d %s", a.Status, a.Text)
	}
	a := w.Post(path, url.Values{"reason": {" two\nlines "}, "for": {"4h"}, "seq": {"7"}})
	if a.Status != 303 || a.To != "/ui/channels/web" || did.Reason != "two lines" || did.Form.Get("seq") != "7" || !did.Until.Equal(time.Date(2026, 3, 1, 16, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v, did %+v", a, did)
	}
	if w.Post(path, url.Values{"reason": {"x"}, "for": {"forever"}}); !did.Until.IsZero() {
		t.Errorf("a time that is not offered: %s", did.Until)
	}
	*fails = &api.Error{Status: 409, Message: "it moved <b>"}
	if a := w.Post(path, url.Values{"reason": {"because"}}); a.Status != 409 || !strings.Contains(a.Text, "it moved &lt;b&gt;") || !strings.Contains(a.Text, ">because</textarea>") {
		t.Errorf("what fails: %d %s", a.Status, a.Text)
	}
	if a := w.Post(path, url.Values{"reason": {strings.Repeat("x", 20<<10)}}); a.Status != 413 {
		t.Errorf("a form of 20 KiB: %d", a.Status)
	}
	reader, _, _ := world(t, "read:web")
	if a := reader.Post(path, url.Values{"reason": {"x"}}); a.Status != 401 && a.Status != 403 {
		t.Errorf("by who may only look: %d", a.Status)
	}
}

func TestWords(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "0.977 KiB", 1 << 20: "1 MiB", 5 << 30: "5 GiB", -2048: "-2 KiB"} {
		if got := frame.Bytes(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
	hash := strings.Repeat("a", 32)
	for path, want := range map[string]string{
		"/nix/store/" + hash + "-nixos-system-web-1-26.05": "web-1-26.05", "/nix/store/" + hash + "-hello-2.12": "hello-2.12", "web": "web", "": ".",
	} {
		if got := frame.Name(path); got != want {
			t.Errorf("%q is called %q, want %q", path, got, want)
		}
	}
	if got := frame.Short("build /nix/store/" + hash + "-hello-2.12 and more"); got != "build hello-2.12 and more" {
		t.Errorf("short: %q", got)
	}
	for next, want := range map[string]string{
		"/ui/hosts?q=1": "/ui/hosts?q=1", "": frame.Path, "//evil.example/ui/": frame.Path, "https://evil.example/ui/": frame.Path, "/ui/../x": frame.Path, "/ui/\\evil": frame.Path, "/api/v1/": frame.Path,
	} {
		if got := frame.Local(next); got != want {
			t.Errorf("%q leads to %q", next, got)
		}
	}
}
