package hooks

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/hooks/api/gate"
	"narwharf/hooks/rollout/check"
)

// TestAskChecks: who operates some channel has a check asked, of a release if he wants; a
// command that is asked already is not asked twice.
func TestAskChecks(t *testing.T) {
	w := newWorld(t)
	began, goOn := make(chan bool), make(chan bool)
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { began <- true; <-goOn }))
	defer service.Close()
	set, err := check.NewSet([]check.Spec{
		{Name: "smoke", Command: []string{"/bin/sh", "-c", `test "$NARWHARF_STORE_PATHS" = "" || echo $NARWHARF_CHANNEL@$NARWHARF_SEQ $NARWHARF_STORE_PATHS`}},
		{Name: "page", URL: service.URL},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.checks = set
	w.restart()
	a := w.system("a")
	w.promote(1, w.entry("*", a))

	list := decode[struct{ Checks []gate.Check }](t, w.must(w.do("GET", "/api/v1/checks", w.ci, nil), 200, "")).Checks
	if len(list) != 2 || list[0] != (gate.Check{Name: "page", Kind: "url", Asks: service.URL, IntervalS: 30, TimeoutS: 10, Failures: 1}) || list[1].Asks != "sh" {
		t.Errorf("listed are %+v", list)
	}
	ask := func(path string, want string) {
		t.Helper()
		got := decode[gate.Answer](t, w.must(w.do("POST", "/api/v1/checks/"+path, w.op, nil), 200, ""))
		if got.Said != "yes" || got.Detail != want {
			t.Errorf("%s: %+v", path, got)
		}
	}
	ask("smoke", "exit status 0")
	ask("smoke?channel=web", "exit status 0: web@1 "+a.In("/nix/store"))
	w.must(w.do("POST", "/api/v1/checks/smoke?channel=db", w.op, nil), 404, api.NotFound)
	w.must(w.do("POST", "/api/v1/checks/smoke?channel=web", w.scoped("operate:db"), nil), 403, api.Forbidden, "operate:web")
	w.must(w.do("POST", "/api/v1/checks/smoke", w.ci, nil), 403, api.Forbidden)
	w.must(w.do("GET", "/api/v1/checks", w.host, nil), 403, api.Forbidden)
	w.must(w.do("POST", "/api/v1/checks/nothing", w.op, nil), 404, api.NotFound, "it has page, smoke")

	// A policy may name those that there are, and no others.
	put := func(names string) answer {
		return w.do("PUT", "/api/v1/channels/web/policy", w.op, []byte(`{"rollout":{"waves":[{"max":1,"checks":`+names+`},{"checks":["page"]}]}}`))
	}
	w.must(put(`["smoke"]`), 200, "")
	w.must(put(`["smoke","smock"]`), 400, api.BadRequest, `the policy: the check \"smock\" is not in this server's configuration: it has page, smoke`)

	done := make(chan answer)
	go func() { done <- w.do("POST", "/api/v1/checks/page", w.op, nil) }()
	<-began
	w.must(w.do("POST", "/api/v1/checks/page", w.op, nil), 503, api.Unavailable, "somebody asks the check page already")
	close(goOn)
	if a := <-done; a.status != 200 || !strings.Contains(a.body, `"said":"yes"`) {
		t.Errorf("answer %s", a)
	}
}
