package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/hooks/api"
	"narwharf/hooks/api/policy"
	"narwharf/hooks/channel"
	"narwharf/hooks/window"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/effect"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// Real agents on simulated hosts, and the real server: what one says the other
// understands.

const bootsInto = "boots-into"

// agents are the hosts of one channel.
type agents struct {
	*world
	t     interface{ Fatalf(string, ...any) }
	seq   int64
	now   atomic.Int64 // ms, that of the host which is ahead
	keys  *sim.Promoter
	hooks map[effect.HookName]bool
	hosts []*simHost
}

// simHost is a host with its agent, whose server is the real one.
type simHost struct {
	*sim.World
	all    *agents
	name   string
	agent  *nixos.Agent
	down   bool // rebooted by permission, and has not reported the end
	wanted string
	old    bool // an agent that knows of no heads between
}

func newAgents(w *world, t interface{ Fatalf(string, ...any) }, hosts int, systems ...sim.System) *agents {
	a := &agents{world: w, t: t, keys: sim.NewPromoter()}
	w.setClock(func() time.Time {
		return time.Unix(1_800_000_000, 0).Add(time.Duration(a.now.Load()) * time.Millisecond).UTC()
	})
	w.restart()
	for i := range hosts {
		h := &simHost{World: sim.New(&sim.System{Path: sim.Path("old")}), all: a, name: fmt.Sprint("h", i)}
		h.Keys = a.keys
		for _, s := range systems {
			h.Add(&s)
		}
		a.hosts = append(a.hosts, h)
	}
	for _, s := range systems {
		info := sim.Info(s.Path)
		w.cache.infos[info.Path.Hash()] = info
	}
	return a
}

// release promotes a system to all hosts.
func (a *agents) release(path string, action signing.Action) { a.releaseAs(a.seq+1, path, action) }

func (a *agents) releaseAs(seq int64, path string, action signing.Action) {
	before := a.seq
	a.seq = seq
	e := signing.Entry{Target: signing.Everyone, StorePath: path, Closure: sim.Manifest(path).Digest(), System: sim.Machine, Action: action}
	r, err := signing.NewRelease(signing.Head{Origin: sim.Origin, Channel: sim.Channel, Seq: a.seq, Created: a.world.now()}, []signing.Entry{e}, a.keys.Key)
	if err != nil {
		a.t.Fatalf("%v", err)
	}
	body := api.Promotion{Release: *r, Keys: []string{a.keys.Key.Public().String()}, Kind: api.KindPath}
	a.ask("PUT", "/api/v1/channels/"+sim.Channel, a.admin, body, 200, "If-Match", channel.ETag(before))
}

func (a *agents) policyIs(p policy.Channel) {
	a.ask("PUT", "/api/v1/channels/"+sim.Channel+"/policy", a.op, p, 200)
}

// ask is a request without a network; want 0 takes any answer.
func (a *agents) ask(method, path, token string, body any, want int, header ...string) answer {
	text, err := json.Marshal(body)
	if err != nil {
		a.t.Fatalf("%v", err)
	}
	req := httptest.NewRequest(method, path, strings.NewReader(string(text)))
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	a.s.ServeHTTP(rec, req)
	got := answer{status: rec.Code, header: rec.Header(), body: rec.Body.String()}
	if want != 0 && got.status != want {
		a.t.Fatalf("%s %s %s: %s, want %d", method, path, text, got, want)
	}
	return got
}

// Desired implements nixos.Server. A poll that would park is over at once, and
// the host's clock has moved on by it.
func (h *simHost) Desired(ctx context.Context, etag string, have api.Have, wait time.Duration) (*api.Desired, string, error) {
	h.all.now.Store(max(h.all.now.Load(), h.Clock))
	f, err := h.Facts(ctx)
	if err != nil {
		return nil, "", err
	}
	query := ""
	if !h.old {
		query = fmt.Sprintf("&seq=%d&keys=%d", have.Seq, have.Keys)
	}
	a := h.all.ask("GET", "/api/v1/hosts/"+h.name+"/desired?channel="+sim.Channel+"&target="+sim.Target+"&boot="+f.BootID+query, h.all.admin, nil, 0, "If-None-Match", etag)
	switch a.status {
	case http.StatusOK:
		d := new(api.Desired)
		return d, a.header.Get("ETag"), json.Unmarshal([]byte(a.body), d)
	case http.StatusNotModified:
		h.Clock += wait.Milliseconds()
		return nil, "", api.ErrNotModified
	}
	h.all.t.Fatalf("the poll of %s: %s", h.name, a)
	return nil, "", nil
}

func (h *simHost) put(s *api.Status) {
	h.all.now.Store(max(h.all.now.Load(), h.Clock))
	h.all.ask("PUT", "/api/v1/hosts/"+h.name+"/status", h.all.admin, s, 204)
	if h.down && s.State.Final() && s.State != api.Armed {
		h.down = false
	}
}

// Report implements nixos.Server.
func (h *simHost) Report(ctx context.Context, s *api.Status) {
	h.put(s)
	h.World.Report(ctx, s)
}

// ReportNow implements nixos.Server.
func (h *simHost) ReportNow(ctx context.Context, s *api.Status) error {
	h.put(s)
	return h.World.ReportNow(ctx, s)
}

// Probe implements nixos.Units: the new system's agent reports, too.
func (h *simHost) Probe(ctx context.Context, path string, s *api.Status) effect.Probed {
	p := h.World.Probe(ctx, path, s)
	if p.Outcome == effect.ProbeOK {
		h.put(s)
	}
	return p
}

// Narinfos implements nixos.Server.
func (h *simHost) Narinfos(ctx context.Context, paths []narinfo.Path) ([]*narinfo.Info, error) {
	return h.World.Narinfos(ctx, paths)
}

// turn lets the agent do its next step; it may end with the host's boot.
func (h *simHost) turn() {
	reboots := h.Reboots
	defer func() {
		h.all.now.Store(max(h.all.now.Load(), h.Clock))
		switch p := recover().(type) {
		case nil:
		case sim.Crash:
			h.agent = nil
			h.down = h.down || h.Reboots > reboots
		default:
			panic(p)
		}
	}()
	ctx := context.Background()
	var err error
	if h.agent == nil {
		rules := h.all.keys.Rules()
		rules.Hooks = h.all.hooks
		h.agent = h.Agent(rules)
		h.agent.Host.Network, h.agent.Host.Server = h, h
		h.agent.Stager.Host = h.agent.Host
		h.agent.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
		err = h.agent.Start(ctx)
	} else {
		err = h.agent.Turn(ctx)
	}
	if err != nil {
		h.all.t.Fatalf("agent of %s: %v", h.name, err)
	}
}

func (h *simHost) state() (api.State, int64) {
	if len(h.Acks) == 0 {
		return "", 0
	}
	s := h.Acks[len(h.Acks)-1]
	return s.State, s.Seq
}

// down counts the hosts that rebooted and have not said how it ended.
func (a *agents) down() (n int) {
	for _, h := range a.hosts {
		if h.down {
			n++
		}
	}
	return n
}

// ends tells whether all hosts have ended the last release.
func (a *agents) ends() bool {
	for _, h := range a.hosts {
		if s, seq := h.state(); seq != a.seq || !s.Final() || s == api.Armed {
			return false
		}
	}
	return true
}

// TestAgentsShareSlots: whatever agents and server go through, never are more
// hosts down than there are slots, and all come to an end with all slots free.
func TestAgentsShareSlots(t *testing.T) {
	w := newWorld(t)
	path, round := w.path, 0
	rapid.Check(t, func(rt *rapid.T) {
		w.stop()
		round++
		w.path = fmt.Sprint(path, round) // a database of its own
		w.files.files = make(map[string][]byte)
		w.start()
		next := sim.System{Path: sim.Path(bootsInto), Reboot: []string{"kernel"}, WontBoot: rapid.IntRange(0, 4).Draw(rt, "falls back") == 0, CheckFails: rapid.IntRange(0, 4).Draw(rt, "is not well") == 0}
		a := newAgents(w, rt, rapid.IntRange(2, 4).Draw(rt, "hosts"), next)
		limit := rapid.IntRange(1, 2).Draw(rt, "slots")
		a.release(next.Path, rapid.SampledFrom([]signing.Action{signing.Reboot, signing.Auto}).Draw(rt, "action"))
		a.policyIs(policy.Channel{RebootSlots: limit, RebootTimeout: 7 * 24 * 3600})
		cuts := 0
		for turns := 0; !a.ends(); turns++ {
			if turns > 4000 {
				for _, h := range a.hosts {
					s, seq := h.state()
					rt.Logf("%s is %s %d, %+v", h.name, s, seq, w.slot(h.name))
				}
				rt.Fatalf("it comes to no end")
			}
			h := a.hosts[(turns*7+turns/5)%len(a.hosts)]
			if turns < 60 {
				h = rapid.SampledFrom(a.hosts).Draw(rt, "host")
				switch rapid.IntRange(0, 19).Draw(rt, "fault") {
				case 0:
					h.agent = nil // killed
				case 1:
					w.restart()
				case 2:
					h.WontReboot = !h.WontReboot
				case 3:
					h.PowerCycle()
					h.agent = nil
					cuts++
				}
			} else {
				h.WontReboot = false
			}
			h.turn()
			if n := a.down(); n > limit {
				rt.Fatalf("%d hosts are down, with %d slots", n, limit)
			}
		}
		for _, h := range a.hosts {
			s, _ := h.state()
			want := api.OK
			if next.WontBoot || next.CheckFails {
				want = api.Reverted
			}
			if cuts > 0 && s == api.Reverted {
				want = s // a power cut may be taken for its fault
			}
			if s != want || h.Reboots == 0 && cuts == 0 && want == api.OK || len(h.Violations) > 0 {
				rt.Fatalf("%s is %s after %d reboots, want %s: %v", h.name, s, h.Reboots, want, h.Violations)
			}
			if sl := w.slot(h.name); sl != nil {
				rt.Fatalf("%s is %s and holds %+v", h.name, s, sl)
			}
		}
	})
}

// TestAgentsWereOff: a host that was off while a channel went farther than one head may
// jump comes along, also with the agent of before, and whatever it ran meanwhile is not run.
func TestAgentsWereOff(t *testing.T) {
	systems := []sim.System{{Path: sim.Path("a")}, {Path: sim.Path("b")}, {Path: sim.Path("c")}, {Path: sim.Path("d")}}
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("the agent of before: %v", old), func(t *testing.T) {
			a := newAgents(newWorld(t), t, 1, systems...)
			h := a.hosts[0]
			h.old = old
			run := func() {
				t.Helper()
				for turns := 0; !a.ends() || h.Current != h.wanted; turns++ {
					if h.turn(); turns > 400 {
						s, seq := h.state()
						t.Fatalf("%s of %d: %s", s, seq, h.Acks[len(h.Acks)-1].Error)
					}
				}
				if s, seq := h.state(); s != api.OK || seq != a.seq {
					t.Fatalf("%s of %d", s, seq)
				}
			}
			a.releaseAs(5, systems[0].Path, signing.Auto)
			h.wanted = systems[0].Path
			run()
			started := h.Started()
			// Off; on again at 1805, and then at far more than one answer leads through.
			for _, to := range []int64{1805, 1805 + 40*signing.MaxSeqJump} {
				for n := 0; a.seq < to; n++ {
					a.releaseAs(min(a.seq+signing.MaxSeqJump, to), systems[1+n%2].Path, signing.Auto)
				}
				a.releaseAs(to+1, systems[3].Path, signing.Auto)
				h.wanted = systems[3].Path
				run()
			}
			if n := h.Started() - started; n != 2 { // test and boot of d, once; nothing of what was in between
				t.Errorf("%d runs of switch-to-configuration", n)
			}
		})
	}
}

// TestAgentsKeepWindows: agents start and reboot within the windows, and in
// each window as many as there are slots for.
func TestAgentsKeepWindows(t *testing.T) {
	w := newWorld(t)
	next := sim.System{Path: sim.Path(bootsInto), Reboot: []string{"kernel"}}
	a := newAgents(w, t, 3, next)
	a.release(next.Path, signing.Reboot)
	begin := a.s.clock()
	from := begin.Add(40 * time.Minute).Format("15:04")
	to := begin.Add(60 * time.Minute).Format("15:04")
	a.policyIs(policy.Channel{RebootSlots: 1, Windows: []window.Window{{From: from, To: to}}})
	for turns := 0; !a.ends(); turns++ {
		if turns > 20_000 {
			t.Fatal("it comes to no end")
		}
		h := a.hosts[0]
		for _, other := range a.hosts { // the one that is behind
			if other.Clock < h.Clock {
				h = other
			}
		}
		started, reboots := h.Started(), h.Reboots
		h.turn()
		minute := a.s.clock().Format("15:04")
		if (h.Started() > started || h.Reboots > reboots) && (minute < from || minute > to) {
			t.Errorf("%s acts at %s, and the window is from %s to %s", h.name, a.s.clock().Format("15:04:05"), from, to)
		}
		if n := a.down(); n > 1 {
			t.Fatalf("%d hosts are down", n)
		}
	}
	for _, h := range a.hosts {
		if s, _ := h.state(); s != api.OK || h.Reboots != 1 {
			t.Errorf("%s is %s after %d reboots", h.name, s, h.Reboots)
		}
	}
}

// TestAgentsObeyDirectives: revert leads a host back, retry forward again.
func TestAgentsObeyDirectives(t *testing.T) {
	w := newWorld(t)
	first, second := sim.System{Path: sim.Path("first")}, sim.System{Path: sim.Path("second")}
	a := newAgents(w, t, 1, first, second)
	h := a.hosts[0]
	until := func(state api.State, current string) {
		t.Helper()
		for range 500 {
			h.turn()
			if s, seq := h.state(); s == state && seq == a.seq && h.Current == current {
				return
			}
		}
		s, seq := h.state()
		t.Fatalf("it is %s at seq %d and runs %s; want %s", s, seq, h.Current, state)
	}
	for _, s := range []sim.System{first, second} {
		a.release(s.Path, signing.Switch)
		until(api.OK, s.Path)
	}
	about := map[string]int64{"seq": a.seq}
	a.ask("POST", "/api/v1/hosts/h0/revert", a.op, about, 200)
	until(api.Reverted, first.Path)
	a.ask("POST", "/api/v1/hosts/h0/retry", a.op, about, 200)
	until(api.OK, second.Path)
}
