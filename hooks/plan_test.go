package hooks

import (
	"testing"

	"narwharf/hooks/api"
	"narwharf/hooks/api/plan"
)

// What a plan is about, and who may see it.
func TestPlan(t *testing.T) {
	w := newWorld(t)
	one, two := w.system("one"), w.system("two")
	w.cache.files[one]["kernel"], w.cache.files[two]["kernel"] = []byte("/nix/store/a-linux/bzImage"), []byte("/nix/store/b-linux/bzImage")
	w.promote(1, w.entry("*", one))
	for _, name := range []string{"web-1", "web-2"} {
		w.must(w.do("PUT", "/api/v1/hosts/"+name+"/status", w.admin, status(1, api.OK, func(st *api.Status) {
			st.Target, st.Seq, st.Wanted, st.Current, st.Booted, st.Profile = name, 1, one.In("/nix/store"), one.In("/nix/store"), one.In("/nix/store"), one.In("/nix/store")
		})), 204, "")
	}
	const url = "/api/v1/channels/web/plan"
	ask := func(query string) plan.Plan {
		t.Helper()
		return decode[plan.Plan](t, w.must(w.do("GET", url+query, w.admin, nil), 200, ""))
	}
	if p := ask(""); p.Seq != 1 || p.Hosts != 2 || p.Unchanged != 2 || p.Changing != 0 {
		t.Errorf("of what is there: %+v", p)
	}
	p := ask("?to=" + two.In("/nix/store"))
	if p.From != 1 || p.Seq != 0 || p.Changing != 2 || p.Reboots != 2 || len(p.Steps) != 1 || p.Steps[0].FetchPaths != 3 || p.Steps[0].Fetch != 300 || p.Fetch != 600 || p.Steps[0].For[0] != "kernel" {
		t.Errorf("of a path: %+v", p)
	}
	w.must(w.do("GET", url+"?target=web-2&to="+two.In("/nix/store"), w.admin, nil), 400, api.BadRequest, "one system for all")
}

func TestPlanOfTargets(t *testing.T) {
	w := newWorld(t)
	one, two := w.system("one"), w.system("two")
	w.promote(1, w.entry("web-1", one), w.entry("web-2", one))
	for _, name := range []string{"web-1", "web-2"} {
		w.must(w.do("PUT", "/api/v1/hosts/"+name+"/status", w.admin, status(1, api.OK, func(st *api.Status) {
			st.Target, st.Seq, st.Wanted, st.Current, st.Booted, st.Profile = name, 1, one.In("/nix/store"), one.In("/nix/store"), one.In("/nix/store"), one.In("/nix/store")
		})), 204, "")
	}
	w.promote(2, w.entry("web-1", two), w.entry("web-2", one))
	const url = "/api/v1/channels/web/plan"
	for query, want := range map[string]int{"": 1, "?to=2": 1, "?to=1": 0, "?to=last-good": 0, "?to=" + two.In("/nix/store"): 2, "?target=web-2&to=" + two.In("/nix/store"): 2, "?target=web-3&to=" + two.In("/nix/store"): 1} {
		if p := decode[plan.Plan](t, w.must(w.do("GET", url+query, w.admin, nil), 200, "")); p.Changing != want {
			t.Errorf("%q: %+v, want %d hosts that change", query, p, want)
		}
	}
	lost := w.put("nixos-system-lost", "00000000000000000000000000000000-away")
	for query, kind := range map[string]api.Kind{
		"?to=7": api.NotFound, "?to=0": api.BadRequest, "?to=latest": api.BadRequest, "?to=/nix/store/short": api.BadRequest, "?target=x": api.BadRequest,
		"?to=" + lost.In("/nix/store"): api.ClosureIncomplete,
	} {
		w.must(w.do("GET", url+query, w.admin, nil), kind.Status(), kind)
	}
	w.must(w.do("GET", "/api/v1/channels/none/plan", w.admin, nil), 404, api.NotFound, "say what it is about")
	w.must(w.do("GET", url, w.token("other", "read:db"), nil), 403, api.Forbidden)
}

// TestDifference: what a release has that another has not, against the last good one, the one before, or any.
func TestDifference(t *testing.T) {
	w := newWorld(t)
	one, two := w.system("one"), w.system("two")
	w.promote(1, w.entry("web-1", one), w.entry("web-2", one), w.entry("web-3", one))
	w.promote(2, w.entry("web-1", two), w.entry("web-2", two), w.entry("web-4", two))
	w.promote(3, w.entry("web-1", two))
	const url = "/api/v1/channels/web/releases/"
	ask := func(query string) plan.Difference {
		t.Helper()
		return decode[plan.Difference](t, w.must(w.do("GET", url+query, w.admin, nil), 200, ""))
	}
	d := ask("2/difference")
	if d.From != 1 || d.LastGood || d.Unchanged != 0 || len(d.Changes) != 3 || d.Changes[0].Count != 2 || len(d.Changes[0].Packages) != 2 || d.Changes[0].FetchPaths != 3 || d.Changes[0].Fetch != 300 ||
		d.Changes[1].Targets[0] != "web-3" || d.Changes[1].After != "" || d.Changes[2].Targets[0] != "web-4" || d.Changes[2].Before != "" || d.Changes[2].Unknown {
		t.Errorf("%+v", d)
	}
	if d := ask("1/difference"); d.From != 0 || len(d.Changes) != 1 || d.Changes[0].Count != 3 {
		t.Errorf("of the first: %+v", d)
	}
	if d := ask("3/difference?from=1"); d.From != 1 || len(d.Changes) != 2 {
		t.Errorf("of another: %+v", d)
	}
	if d := ask("2/difference?from=3"); d.From != 3 || d.Unchanged != 1 {
		t.Errorf("backwards: %+v", d)
	}
	for query, kind := range map[string]api.Kind{"9/difference": api.NotFound, "x/difference": api.BadRequest, "2/difference?from=x": api.BadRequest, "2/difference?from=9": api.NotFound} {
		w.must(w.do("GET", url+query, w.admin, nil), kind.Status(), kind)
	}
	w.must(w.do("GET", url+"2/difference", w.token("other", "read:db"), nil), 403, api.Forbidden)
}
