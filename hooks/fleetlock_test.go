package hooks

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/gate"
	"narwharf/hooks/api/policy"
	"narwharf/hooks/rollout"
	"narwharf/hooks/window"
)

// foreigners are machines of groups that ask by FleetLock.
type foreigners struct {
	*world
	all string // a token with reboot:*
}

func newForeigners(t *testing.T, bubble bool, groups map[string]int, test func(t *testing.T, w *foreigners)) {
	t.Helper()
	run := func(t *testing.T, w *world) {
		w.groups = groups
		w.restart()
		test(t, &foreigners{w, w.scoped("reboot:*")})
	}
	if bubble {
		inBubble(t, run)
		return
	}
	run(t, newWorld(t))
}

// scoped is a new token with a scope.
func (w *world) scoped(scope string) string {
	w.t.Helper()
	return w.token(fmt.Sprintf("t%d", tokens.Add(1)), scope)
}

var tokens atomic.Int64

// asks makes a request as Zincati does.
func (w *foreigners) asks(what, id, group string) answer {
	w.t.Helper()
	return w.asksWith(w.all, what, id, group)
}

func (w *foreigners) asksWith(token, what, id, group string) answer {
	w.t.Helper()
	body := fmt.Appendf(nil, "{\n  \"client_params\": {\n    \"id\": %q,\n    \"group\": %q\n  }\n}", id, group)
	return w.do("POST", "/fleetlock/v1/"+what, token, body, "fleet-lock-protocol", "true")
}

// refused fails unless an answer is one of the protocol's errors.
func (w *foreigners) refused(a answer, status int, kind api.Kind, words string) {
	w.t.Helper()
	var e map[string]string
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || len(e) != 3 || e["request"] == "" {
		w.t.Fatalf("the answer %s is no error of FleetLock: %v", a, err)
	}
	if a.status != status || e["kind"] != string(kind) || !strings.Contains(e["value"], words) {
		w.t.Fatalf("answer %s, want %d %s with %q", a, status, kind, words)
	}
}

func (w *foreigners) fine(a answer) {
	w.t.Helper()
	if a.status != 200 || a.body != "" {
		w.t.Fatalf("answer %s", a)
	}
}

func (w *foreigners) list(token string) []gate.Slot {
	w.t.Helper()
	return decode[struct{ Slots []gate.Slot }](w.t, w.must(w.do("GET", "/api/v1/reboots", token, nil), 200, "")).Slots
}

// TestFleetLock: two of three machines of a group may reboot at a time, each as often as it
// asks, and the third when one of them is back; a restart of the server changes nothing.
func TestFleetLock(t *testing.T) {
	newForeigners(t, false, map[string]int{"workers": 2}, func(t *testing.T, w *foreigners) {
		w.fine(w.asks("steady-state", "a", "workers")) // as Zincati does when it starts
		w.fine(w.asks("pre-reboot", "a", "workers"))
		w.fine(w.asks("pre-reboot", "b", "workers"))
		w.fine(w.asks("pre-reboot", "a", "workers"))
		w.refused(w.asks("pre-reboot", "c", "workers"), 423, api.SlotTaken, "fleetlock/a, fleetlock/b of the group workers may reboot now, 2 at a time")
		w.restart()
		w.refused(w.asks("pre-reboot", "c", "workers"), 423, api.SlotTaken, "2 at a time")
		w.fine(w.asks("steady-state", "c", "workers"))
		w.fine(w.asks("steady-state", "b", "workers"))
		w.fine(w.asks("steady-state", "b", "workers"))
		w.fine(w.asks("pre-reboot", "c", "workers"))
		if list := w.list(w.op); len(list) != 2 || list[0].ID != "a" || list[1].ID != "c" || list[1].Group != "workers" || list[1].Limit != 2 || list[1].Host != "" || list[1].By == "" {
			t.Errorf("listed are %+v", list)
		}
		if n := w.count("reboot.granted"); n != 3 {
			t.Errorf("%d grants in the audit log", n)
		}
		if n := w.count("reboot.ended"); n != 1 {
			t.Errorf("%d ends in the audit log", n)
		}
	})
}

// What is not a request of the protocol, or of somebody who may not make it, is refused in
// the form of the protocol.
func TestFleetLockRefusals(t *testing.T) {
	newForeigners(t, false, map[string]int{"workers": 1}, func(t *testing.T, w *foreigners) {
		const url = "/fleetlock/v1/pre-reboot"
		post := func(token, body string, header ...string) answer {
			t.Helper()
			return w.do("POST", url, token, []byte(body), header...)
		}
		good := `{"client_params":{"id":"a","group":"workers"}}`
		w.refused(post(w.all, good), 400, api.BadRequest, "fleet-lock-protocol: true")
		w.refused(post(w.all, good, "fleet-lock-protocol", "yes"), 400, api.BadRequest, "fleet-lock-protocol: true")
		for words, body := range map[string]string{
			"no client_params": "{}", "not the JSON": "{", "not the JSON of FleetLock: EOF": "", "id \"\" is not": `{"client_params":{"group":"workers"}}`,
			`group "" is not`: `{"client_params":{"id":"a"}}`, `group "Workers" is not`: `{"client_params":{"id":"a","group":"Workers"}}`,
			"id \"a b\" is not":  `{"client_params":{"id":"a b","group":"workers"}}`,
			"id \"../x\" is not": `{"client_params":{"id":"../x","group":"workers"}}`,
			"is not 1 to 128":    `{"client_params":{"id":"` + strings.Repeat("x", 129) + `","group":"workers"}}`,
		} {
			w.refused(post(w.all, body, "fleet-lock-protocol", "true"), 400, api.BadRequest, words)
		}
		w.refused(post(w.all, strings.Repeat(" ", 5000)+good, "fleet-lock-protocol", "true"), 413, api.TooLarge, "4096 bytes")
		w.fine(w.do("POST", url, w.all, []byte(`{"client_params":{"id":"a","group":"workers","new":1},"more":2}`), "fleet-lock-protocol", "true"))

		w.refused(post("", good, "fleet-lock-protocol", "true"), 401, api.Unauthorized, "reboot")
		w.refused(post(w.host, good, "fleet-lock-protocol", "true"), 403, api.Forbidden, "reboot")
		other := w.scoped("reboot:db")
		w.refused(w.asksWith(other, "pre-reboot", "x", "workers"), 403, api.Forbidden, "reboot:workers")
		w.refused(w.asksWith(other, "steady-state", "a", "workers"), 403, api.Forbidden, "reboot:workers")
		w.refused(w.asks("pre-reboot", "x", "nobody"), 404, api.NotFound, "the group nobody has no reboot slots")
		w.refused(w.asks("steady-state", "x", "nobody"), 404, api.NotFound, "fleetlock.groups")
		w.refused(w.do("GET", url, w.all, nil), 405, api.MethodNotAllowed, "GET does nothing here")
		w.refused(w.do("POST", "/fleetlock/v2/pre-reboot", w.all, nil), 404, api.NotFound, "there is nothing")

		// The password of a URL's user is a token, too, as everywhere.
		a := w.do("POST", url, "", []byte(good), "fleet-lock-protocol", "true", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("zincati:"+w.all)))
		w.fine(a)
		if len(w.list(w.op)) != 1 {
			t.Errorf("held are %+v", w.list(w.op))
		}
	})
}

// A channel's hosts and machines of its name share its slots, windows included; the smaller
// number counts.
func TestFleetLockWithHosts(t *testing.T) {
	newForeigners(t, false, map[string]int{"web": 5}, func(t *testing.T, w *foreigners) {
		hosts := rebooters(w.world, 1, "web-1")
		h := hosts[0]
		w.fine(w.asks("pre-reboot", "coreos-1", "web"))
		h.asks(1)
		if d := h.poll(); d.Reboot != nil || d.WaitingFor == nil || !strings.Contains(d.WaitingFor.Detail, "fleetlock/coreos-1 of the group web") {
			t.Fatalf("the host is told %+v", d)
		}
		w.refused(w.asks("pre-reboot", "coreos-2", "web"), 423, api.SlotTaken, "1 at a time")
		w.fine(w.asks("steady-state", "coreos-1", "web"))
		if d := h.poll(); d.Reboot == nil {
			t.Fatalf("the host is told %+v", d)
		}
		w.refused(w.asks("pre-reboot", "coreos-2", "web"), 423, api.SlotTaken, "web-1 of the group web")
		if list := w.list(w.scoped("read:web")); len(list) != 1 || list[0].Host != "web-1" || list[0].ID != "" || list[0].Seq != 1 || list[0].Limit != 1 {
			t.Errorf("listed are %+v", list)
		}
		if list := w.list(w.scoped("read:db")); len(list) != 0 {
			t.Errorf("who may look at db sees %+v", list)
		}
		h.ends(api.OK)
		closed := window.Window{From: "00:00", To: "00:01", Days: []string{time.Now().UTC().AddDate(0, 0, 3).Format("Mon")}}
		w.must(w.setPolicy(policy.Channel{RebootSlots: 1, Windows: []window.Window{closed}}), 200, "")
		w.refused(w.asks("pre-reboot", "coreos-2", "web"), 423, api.NotNow, "the next window opens")
	})
}

// A freeze lets nobody take a slot, and everybody give one back.
func TestFleetLockFrozen(t *testing.T) {
	newForeigners(t, false, map[string]int{"workers": 2}, func(t *testing.T, w *foreigners) {
		w.fine(w.asks("pre-reboot", "a", "workers"))
		if err := w.s.Rollouts.SetFreeze(t.Context(), &rollout.Hold{Reason: "the fair", By: "op"}, "op"); err != nil {
			t.Fatal(err)
		}
		w.refused(w.asks("pre-reboot", "b", "workers"), 423, api.NotNow, "there is a freeze: the fair")
		w.fine(w.asks("pre-reboot", "a", "workers"))
		w.fine(w.asks("steady-state", "a", "workers"))
		w.refused(w.asks("pre-reboot", "a", "workers"), 423, api.NotNow, "there is a freeze")
		if err := w.s.Rollouts.SetFreeze(t.Context(), nil, "op"); err != nil {
			t.Fatal(err)
		}
		w.fine(w.asks("pre-reboot", "b", "workers"))
	})
}

// A machine that does not come back keeps its slot, is an alarm, and a person frees it.
func TestFleetLockOverdue(t *testing.T) {
	newForeigners(t, true, map[string]int{"workers": 1}, func(t *testing.T, w *foreigners) {
		w.fine(w.asks("pre-reboot", "a", "workers"))
		time.Sleep(2 * time.Hour)
		if n := w.count("reboot.late"); n != 1 {
			t.Errorf("%d alarms", n)
		}
		list := w.list(w.op)
		if len(list) != 1 || !list[0].Overdue {
			t.Fatalf("listed are %+v", list)
		}
		w.refused(w.asks("pre-reboot", "b", "workers"), 423, api.SlotTaken, "")
		if alarm := w.events("reboot.late")[0]; !alarm.Alarm || alarm.Host != "" || alarm.Channel != "workers" || alarm.Data["id"] != "a" || !strings.Contains(alarm.Text, "narwharf reboots free workers a") {
			t.Errorf("the alarm is %+v", alarm)
		}
		w.must(w.do("DELETE", "/api/v1/reboots/workers/a", w.scoped("operate:db"), nil), 403, api.Forbidden)
		w.must(w.do("DELETE", "/api/v1/reboots/db/a", w.op, nil), 409, api.IdentityConflict, "holds a reboot slot of the group workers")
		w.must(w.do("DELETE", "/api/v1/reboots/workers/b", w.op, nil), 404, api.NotFound, "narwharf reboots list")
		w.must(w.do("DELETE", "/api/v1/reboots/workers/a", w.scoped("operate:workers"), nil), 204, "")
		w.fine(w.asks("pre-reboot", "b", "workers"))
	})
}

// One id has one slot, whatever groups it names.
func TestFleetLockMoved(t *testing.T) {
	newForeigners(t, false, map[string]int{"a": 1, "b": 1}, func(t *testing.T, w *foreigners) {
		w.fine(w.asks("pre-reboot", "m", "a"))
		w.refused(w.asks("pre-reboot", "m", "b"), 409, api.IdentityConflict, "narwharf reboots free a m")
		w.refused(w.asks("steady-state", "m", "b"), 409, api.IdentityConflict, "narwharf reboots free a m")
		w.fine(w.asks("steady-state", "m", "a"))
		w.fine(w.asks("pre-reboot", "m", "b"))
		// Its group was taken out of the configuration: it gives back what it has.
		w.groups = nil
		w.restart()
		w.fine(w.asks("steady-state", "m", "b"))
	})
}

// Of many that ask in the same moment as many may reboot as there are slots.
func TestFleetLockAtOnce(t *testing.T) {
	newForeigners(t, false, map[string]int{"workers": 3}, func(t *testing.T, w *foreigners) {
		var asking sync.WaitGroup
		got := make(chan int, 40)
		for i := range 40 {
			asking.Go(func() {
				a, err := w.try("POST", "/fleetlock/v1/pre-reboot", w.all, fmt.Appendf(nil, `{"client_params":{"id":"m%d","group":"workers"}}`, i%20), "fleet-lock-protocol", "true")
				if err != nil {
					t.Error(err)
				}
				got <- a.status
			})
		}
		asking.Wait()
		if n := len(w.list(w.op)); n != 3 {
			t.Errorf("%d hold a slot", n)
		}
	})
}
