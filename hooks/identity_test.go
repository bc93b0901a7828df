package hooks

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// machine is a host's side of the API, with an identity.
type machine struct {
	w                       *world
	host, token             string
	instance, machine, boot string
	counter                 int64
}

func (w *world) machine(host, instance, boot string) *machine {
	if instance != "" {
		instance = fmt.Sprintf("%032s", instance)
	}
	return &machine{w: w, host: host, token: w.host, instance: instance, machine: "m-" + boot, boot: boot}
}

// report sends a status, newer than all before it by whoever it was.
func (m *machine) report() answer {
	m.w.t.Helper()
	m.counter = time.Now().UnixNano()
	return m.w.do("PUT", "/api/v1/hosts/"+m.host+"/status", m.token, status(m.counter, api.Idle, func(s *api.Status) {
		s.Instance, s.BootID, s.Target, s.Current = m.instance, m.boot, m.host, "/nix/store/"+m.boot
		if m.instance != "" {
			s.Machine = m.machine
		}
	}))
}

func (m *machine) query() string {
	q := "?channel=web"
	if m.instance != "" {
		q += "&instance=" + m.instance + "&machine=" + m.machine + "&boot=" + m.boot
	}
	return q
}

func (m *machine) poll(header ...string) answer {
	m.w.t.Helper()
	return m.w.do("GET", "/api/v1/hosts/"+m.host+"/desired"+m.query(), m.token, nil, header...)
}

func (m *machine) refused() {
	m.w.t.Helper()
	for _, a := range []answer{m.report(), m.poll(),
		m.w.do("POST", "/api/v1/hosts/"+m.host+"/log"+m.query()+"&attempt=a1", m.token, []byte("text"))} {
		m.w.must(a, 409, api.IdentityConflict, "another machine has the name "+m.host, "narwharf host approve "+m.host)
	}
}

func (m *machine) taken() {
	m.w.t.Helper()
	m.w.must(m.report(), 204, "")
	m.w.must(m.poll(), 200, "")
}

// show is what operators see of a host.
func (w *world) show(host string) api.Host {
	w.t.Helper()
	return decode[api.Host](w.t, w.must(w.do("GET", "/api/v1/hosts/"+host, w.op, nil), 200, ""))
}

// events returns those of a kind.
func (w *world) events(kind string) (list []api.Event) {
	w.t.Helper()
	all := decode[struct{ Events []api.Event }](w.t, w.do("GET", "/api/v1/events", w.op, nil)).Events
	for _, e := range all {
		if e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

// wantEvents fails unless there are n events of a kind, alarms or not.
func (w *world) wantEvents(kind string, n int, alarm bool) []api.Event {
	w.t.Helper()
	list := w.events(kind)
	if len(list) != n {
		w.t.Fatalf("there are %d events %s and not %d: %+v", len(list), kind, n, list)
	}
	for _, e := range list {
		if e.Alarm != alarm {
			w.t.Errorf("%s: alarm is %t: %+v", kind, e.Alarm, e)
		}
	}
	return list
}

func (w *world) approve(host, instance string) answer {
	w.t.Helper()
	return w.do("POST", "/api/v1/hosts/"+host+"/approve", w.op, map[string]string{"instance": instance})
}

func TestTheFirstMachineHasTheName(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
	w.promote(1, w.entry("*", w.system("x")))
	a.taken()
	if h := w.show("web-1"); h.Identity == nil || h.Identity.Instance != a.instance || h.Identity.Machine != a.machine || len(h.Conflict) != 0 {
		t.Errorf("%+v", h.Identity)
	}
	for range 3 {
		b.refused()
	}
	e := w.wantEvents("host.identity", 1, true)[0]
	if e.Host != "web-1" || e.Channel != "web" || e.Data["instance"] != b.instance || !strings.Contains(e.Text, "narwharf host approve web-1 --instance "+b.instance) {
		t.Errorf("%+v", e)
	}
	h := w.show("web-1")
	if len(h.Conflict) != 1 || h.Conflict[0].Instance != b.instance || h.Conflict[0].Machine != b.machine || h.Conflict[0].Address != "127.0.0.1" || time.Since(h.Conflict[0].Since) > time.Minute {
		t.Errorf("conflict %+v", h.Conflict)
	}
	if h.Status.Current != "/nix/store/boot-a" || h.Status.Instance != a.instance {
		t.Errorf("the other's report is shown: %+v", h.Status)
	}

	// The same after a restart, and no second alarm.
	w.restart()
	b.refused()
	a.taken()
	w.wantEvents("host.identity", 1, true)
	if h := w.show("web-1"); len(h.Conflict) != 1 {
		t.Errorf("conflict after a restart %+v", h.Conflict)
	}

	// The other one with a name of its own claims nothing any more.
	b.host = "web-2"
	b.taken()
	if h := w.show("web-1"); len(h.Conflict) != 0 {
		t.Errorf("conflict after the other went away: %+v", h.Conflict)
	}
}

// While a system with another host name is on trial, the agents of both speak in
// turns. That is one alarm, and in the end none of them claims anything.
func TestAProbeUnderAnotherName(t *testing.T) {
	w := newWorld(t)
	other := w.machine("web-3", "c", "boot-c")
	other.taken()
	is, trial := w.machine("web-2", "b", "boot-b"), w.machine("web-3", "b", "boot-b")
	is.taken()
	for range 3 {
		w.must(trial.report(), 409, api.IdentityConflict)
		if h := w.show("web-3"); len(h.Conflict) != 1 {
			t.Errorf("%+v", h.Conflict)
		}
		is.taken()
		if h := w.show("web-3"); len(h.Conflict) != 0 {
			t.Errorf("%+v", h.Conflict)
		}
		w.restart()
	}
	w.wantEvents("host.identity", 1, true)
	w.wantEvents("host.cloned", 0, true)
	w.wantEvents("host.renamed", 0, false)
	// A claim that was withdrawn long ago is another one.
	later := time.Now().Add(2 * claimPause)
	w.setClock(func() time.Time { return later })
	w.must(trial.report(), 409, api.IdentityConflict)
	w.wantEvents("host.identity", 2, true)
	// An approve of what was withdrawn is for nothing.
	w.must(is.report(), 204, "")
	w.must(w.approve("web-3", is.instance), 404, api.NotFound)
}

// Nobody of those who claim a name is heard before it has an owner: that takes
// a report.
func TestAPollOwnsNothing(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
	w.must(b.poll(), 200, "")
	a.taken()
	b.refused()
}

func TestApprove(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b"), w.machine("web-1", "c", "boot-c")
	w.must(w.approve("web-1", b.instance), 404, api.NotFound)
	a.taken()
	w.must(w.do("PATCH", "/api/v1/hosts/web-1", w.op, map[string]any{"labels": map[string]string{"rack": "7"}}), 200, "")
	b.refused()
	c.refused()
	w.wantEvents("host.identity", 2, true)
	for _, token := range []string{w.host, w.ci} {
		w.must(w.do("POST", "/api/v1/hosts/web-1/approve", token, map[string]string{"instance": b.instance}), 403, api.Forbidden, "operate")
	}
	w.must(w.do("POST", "/api/v1/hosts/web-1/approve", w.op, map[string]any{}), 400, api.BadRequest)
	w.must(w.approve("web-1", "x"), 400, api.BadRequest)
	w.must(w.approve("web-1", strings.Repeat("9", 32)), 404, api.NotFound, "narwharf host show web-1")

	// a's poll is parked and ends when the name goes.
	etag := a.poll().header.Get("ETag")
	ended := make(chan answer, 1)
	go func() {
		got, _ := w.try("GET", "/api/v1/hosts/web-1/desired"+a.query(), a.token, nil, "If-None-Match", etag, "Prefer", "wait=60")
		ended <- got
	}()
	w.parked(1)
	h := decode[api.Host](t, w.must(w.approve("web-1", b.instance), 200, ""))
	if h.Identity.Instance != b.instance || h.Identity.Machine != b.machine || h.Status != nil || h.Labels["rack"] != "7" || len(h.Conflict) != 0 {
		t.Errorf("approved: %+v", h)
	}
	select {
	case got := <-ended:
		w.must(got, 409, api.IdentityConflict)
	case <-time.After(10 * time.Second):
		t.Fatal("the poll of the former machine did not end")
	}
	w.wantEvents("host.approved", 1, false)
	w.restart()
	b.taken()
	a.refused()
	c.refused()
	w.wantEvents("host.identity", 4, true) // each claims anew

	// That the one who has it is right ends the conflict, too.
	h = decode[api.Host](t, w.must(w.approve("web-1", b.instance), 200, ""))
	if len(h.Conflict) != 0 || h.Identity.Instance != b.instance || h.Status == nil {
		t.Errorf("approved again: %+v", h)
	}
}

func TestRemoveForgetsTheMachine(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
	a.taken()
	b.refused()
	w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil), 204, "")
	w.must(w.do("GET", "/api/v1/hosts/web-1", w.admin, nil), 404, api.NotFound)
	w.restart()
	b.taken()
	a.refused()
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	old, is := w.machine("web-1", "a", "boot-a"), w.machine("web-2", "a", "boot-a")
	old.taken()
	// The probe of the new system speaks with the new name while the agent of
	// the old one goes on for a moment.
	w.must(is.report(), 204, "")
	old.taken()
	is.taken()
	e := w.wantEvents("host.renamed", 1, false)[0]
	if e.Host != "web-2" || e.Text != "web-2 is the machine that was web-1, by its instance" {
		t.Errorf("%+v", e)
	}
	w.wantEvents("host.cloned", 0, true)
	w.restart()
	is.taken()
	if h := w.show("web-2"); h.Identity.Was != "web-1" || h.Identity.Cloned {
		t.Errorf("%+v", h.Identity)
	}
	if h := w.show("web-1"); h.Identity.Instance != is.instance || h.Online {
		t.Errorf("the old name: %+v", h)
	}
}

func TestClones(t *testing.T) {
	for name, c := range map[string]struct {
		other string // host name of the copy
		same  bool   // machine ids
		polls bool   // it is a poll that tells
	}{
		"by machine id":    {other: "web-1"},
		"by boot id":       {other: "web-1", same: true},
		"by poll":          {other: "web-1", same: true, polls: true},
		"under other name": {other: "web-2", same: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.machine("web-1", "a", "boot-a"), w.machine(c.other, "a", "boot-b")
			if c.same {
				b.machine = a.machine
			}
			a.taken()
			b.taken() // as after a reboot, or a rename
			w.wantEvents("host.cloned", 0, true)
			w.restart()
			if c.polls {
				w.must(a.poll(), 200, "")
			} else {
				a.taken()
			}
			for range 3 {
				b.taken()
				a.taken()
			}
			e := w.wantEvents("host.cloned", 1, true)[0]
			if !strings.Contains(e.Text, "boots boot-a and boot-b") || e.Host != "web-1" {
				t.Errorf("%+v", e)
			}
			if h := w.show("web-1"); !h.Identity.Cloned {
				t.Errorf("%+v", h.Identity)
			}
			// It ends when a person says so, and begins again if it was not true.
			w.must(w.approve("web-1", a.instance), 200, "")
			if h := w.show("web-1"); h.Identity.Cloned {
				t.Errorf("after approve: %+v", h.Identity)
			}
			a.taken()
			w.wantEvents("host.cloned", 1, true)
			b.taken()
			a.taken()
			w.wantEvents("host.cloned", 2, true)
		})
	}
}

// Hosts with a root in memory draw a machine id at every boot.
func TestMachineIDsOfEachBoot(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		m := w.machine("web-1", "a", fmt.Sprintf("boot-%d", i))
		m.taken()
		m.taken()
	}
	w.wantEvents("host.machine", 11, false)
	w.wantEvents("host.cloned", 0, true)
	w.wantEvents("host.identity", 0, true)
}

// Agents from before instances: they get theirs, and a host may go back.
func TestOlderAgents(t *testing.T) {
	w := newWorld(t)
	old, other := w.machine("web-1", "", "boot-a"), w.machine("web-1", "b", "boot-b")
	old.taken()
	if h := w.show("web-1"); h.Identity.Instance != "" {
		t.Errorf("%+v", h.Identity)
	}
	is := w.machine("web-1", "a", "boot-a")
	is.taken()
	w.wantEvents("host.identified", 1, false)
	other.refused()
	// Back to the older agent, live: the boot is known.
	w.must(old.poll(), 409, api.IdentityConflict) // it has not reported yet
	old.taken()
	w.restart()
	old.taken()
	is.taken()
	// A boot that nobody knows could be any machine's.
	stranger := w.machine("web-1", "", "boot-c")
	w.must(stranger.report(), 409, api.IdentityConflict, "--instance none")
	w.must(w.approve("web-1", ""), 200, "")
	stranger.taken()
	// Unless it shows a token of this host's own.
	is = w.machine("web-1", "d", "boot-d")
	is.taken()
	stranger.boot = "boot-e"
	w.must(stranger.report(), 409, api.IdentityConflict)
	secret, tok, err := access.New("own", "web-1", scope.Set{{Kind: scope.Follow, Glob: "web"}}, time.Now(), time.Time{})
	if err == nil {
		err = w.tokens.Add(context.Background(), tok)
	}
	if err != nil {
		t.Fatal(err)
	}
	stranger.token = secret
	w.must(stranger.report(), 204, "")
}

// Two old agents under one name are known by their boots alone.
func TestOlderAgentsTakeTurns(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine("web-1", "", "boot-a"), w.machine("web-1", "", "boot-b")
	a.taken()
	b.taken()
	w.wantEvents("host.cloned", 0, true)
	a.taken()
	w.wantEvents("host.cloned", 1, true)
}

// Whoever draws instances at will fills nothing.
func TestClaimsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.machine("web-1", "a", "boot-a").taken()
	for i := range 2 * maxClaims {
		w.must(w.machine("web-1", fmt.Sprintf("%d", 100+i), "boot").report(), 409, api.IdentityConflict)
	}
	w.wantEvents("host.identity", maxClaims, true)
	if h := w.show("web-1"); len(h.Conflict) != maxClaims {
		t.Errorf("%d claims", len(h.Conflict))
	}
}

// With the database all identities are gone: the first that comes has the name.
func TestAWipedDatabase(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
	a.taken()
	b.refused()
	w.stop()
	w.path += "-new"
	w.start()
	b.taken()
	a.refused()
}

func TestIdentityGrammar(t *testing.T) {
	w := newWorld(t)
	for _, q := range []string{"&instance=x", "&instance=" + strings.Repeat("A", 32)} {
		w.must(w.do("GET", desiredPath+q, w.host, nil), 400, api.BadRequest)
	}
	for _, q := range []string{"&machine=", "&boot="} {
		w.must(w.do("GET", desiredPath+q+strings.Repeat("a", 64), w.host, nil), 200, "")
		w.must(w.do("GET", desiredPath+q+strings.Repeat("a", 65), w.host, nil), 400, api.BadRequest)
	}
	m := w.machine("web-1", "a", "boot-a")
	m.instance = "short"
	w.must(m.report(), 400, api.BadRequest, "32 hex digits")
}

// A token that is bound to a host is refused for others, by each of a host's routes.
func TestBoundTokens(t *testing.T) {
	w := newWorld(t)
	secret, tok, err := access.NewHost("web-1", "web", time.Now())
	if err == nil {
		err = w.tokens.Add(context.Background(), tok)
	}
	if err != nil {
		t.Fatal(err)
	}
	m := w.machine("web-1", "a", "boot-a")
	m.token = secret
	m.taken()
	m.host = "web-2"
	for _, a := range []answer{m.report(), m.poll(),
		w.do("POST", "/api/v1/hosts/web-2/log"+m.query()+"&attempt=a1", m.token, []byte("text"))} {
		w.must(a, 403, api.Forbidden, `is that of the host web-1 and cannot act as web-2`)
	}
	w.must(w.do(http.MethodGet, "/api/v1/hosts/web-2", w.admin, nil), 404, api.NotFound)
}

// Tables that cannot be read stop the server, which would give names away else.
func TestIdentitiesThatCannotBeRead(t *testing.T) {
	for bucket, want := range map[string]string{"owner": "owner of host web-1", "instance": "instance web-1"} {
		w := newWorld(t)
		w.machine("web-1", "a", "boot-a").taken()
		if err := w.db.Update(t.Context(), nil, func(tx state.Tx) error { return tx.Put("hooks/"+bucket, "web-1", []byte("{")) }); err != nil {
			t.Fatal(err)
		}
		_, err := New(Options{State: w.db, Cache: w.cache, Files: w.files, Access: w.s.access, Log: w.s.log, Metrics: prometheus.NewRegistry()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bucket, err)
		}
	}
}

// What cannot be written is no answer that says it was.
func TestIdentitiesThatCannotBeWritten(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
	a.taken()
	c := w.machine("web-1", "a", "boot-c")
	c.taken()
	w.show("web-1") // the operator's token is known
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]answer{
		"a claim": b.report(), "a claim by a poll": b.poll(), "a clone": a.poll(), "a report": c.report(), "an approve": w.approve("web-1", a.instance),
		"a removal": w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil),
	} {
		if got.status != 500 || got.err.Kind != api.Internal {
			t.Errorf("%s: %s", what, got)
		}
	}
	w.must(c.poll(), 200, "") // needs nothing written
	if h := w.show("web-1"); len(h.Conflict) != 0 || h.Identity.Cloned || h.Identity.Instance != a.instance {
		t.Errorf("memory has what the database has not: %+v", h)
	}
	w.http.Close() // what stop does, without the database
	w.s.Stop()
	_ = w.parking.Close()
	<-w.served
	w.start()
	c.taken()
	b.refused()
}
