package plan

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/hooks/api/plan"
	"narwharf/hooks/rollout/policy"
	"narwharf/narinfo"
	"narwharf/signing"
)

// cache has closures by their root, and counts how often one is read.
type cache struct {
	closures map[narinfo.Path]*signing.Manifest
	files    map[narinfo.Path]map[string][]byte
	read     int
}

func (c *cache) Manifest(root narinfo.Path) (*signing.Manifest, []narinfo.Path, error) {
	c.read++
	if m := c.closures[root]; m != nil {
		return m, nil, nil
	}
	return nil, []narinfo.Path{root}, nil
}

func (c *cache) Files(root narinfo.Path, _ []string, _ int64) (map[string][]byte, error) {
	if f, ok := c.files[root]; ok {
		return f, nil
	}
	return nil, fs.ErrNotExist
}

// add makes a system with one library of a size.
func (c *cache) add(t testing.TB, version string, lib int64, kernel string) string {
	t.Helper()
	root := "nixos-system-" + version
	m := closureOf(t, map[string]int64{root: 100, "lib-" + version: lib, "always-1": 1000}, root)
	for _, l := range m.Lines {
		if l.Path.Name() == root {
			c.closures[l.Path] = m
			c.files[l.Path] = map[string][]byte{"kernel": []byte("/nix/store/" + kernel), "initrd": []byte("i")}
			return l.Path.In("/nix/store")
		}
	}
	panic("unreachable")
}

func newCache() *cache {
	return &cache{closures: make(map[narinfo.Path]*signing.Manifest), files: make(map[narinfo.Path]map[string][]byte)}
}

func host(name, current string, change func(*api.Host)) api.Host {
	h := api.Host{Host: name, Online: true, Status: &api.Status{Target: name, Current: current, Booted: current, Profile: current}}
	if change != nil {
		change(&h)
	}
	return h
}

func everyone(path string, action signing.Action) []signing.Entry {
	return []signing.Entry{{Target: signing.Everyone, StorePath: path, Action: action}}
}

// Each kind of host is counted once, and what it would do is told.
func TestHosts(t *testing.T) {
	c := newCache()
	old, older, next := c.add(t, "1", 5000, "k1"), c.add(t, "0", 4000, "k2"), c.add(t, "2", 6000, "k2")
	hosts := []api.Host{
		host("a", old, nil),
		host("b", old, func(h *api.Host) { h.Online = false }),
		host("c", older, func(h *api.Host) { h.Hold = &api.Hold{Reason: "disk"} }),
		host("d", next, nil),
		host("e", old, func(h *api.Host) { h.Labels = map[string]string{"site": "fra"} }),
		host("f", "/nix/store/00000000000000000000000000000000-gone", nil),
		{Host: "g"},
		host("h", next, func(h *api.Host) { h.Status.Profile = old }), // by test, or a rollback by hand
		host("i", old, func(h *api.Host) { h.Status.Pause = &api.Hold{Reason: "debugging"} }),
	}
	ask := &Ask{Channel: "web", From: 4, To: next, Entries: everyone(next, signing.Auto), Hosts: hosts, Held: func(labels map[string]string) string {
		if labels["site"] == "fra" {
			return "fra moves"
		}
		return ""
	}, Quarantined: func(string) string { return "" }}
	p, err := Of(t.Context(), ask, c)
	if err != nil {
		t.Fatal(err)
	}
	if p.Hosts != 9 || p.Changing != 7 || p.Unchanged != 1 || p.Silent != 1 || p.NotInRelease != 0 || p.Offline != 1 || p.Held != 3 || p.Reboots != 4 || len(p.Steps) != 4 {
		t.Errorf("%+v", p)
	}
	first := p.Steps[0] // a, b, e, i
	if first.From != old || first.To != next || first.Hosts != 4 || first.FetchPaths != 2 || first.Fetch != 6100 || !first.Reboot || strings.Join(first.For, " ") != "kernel" || len(first.Targets) != 3 {
		t.Errorf("%+v", first)
	}
	if pk := first.Packages; len(pk) != 2 || pk[0].Name != "lib" || pk[0].Before[0] != "1" || pk[0].After[0] != "2" || pk[0].Bytes != 1000 || pk[1].Name != "nixos-system" {
		t.Errorf("%+v", pk)
	}
	if p.Fetch != 4*6100+6100+7100 {
		t.Errorf("%d bytes in all", p.Fetch)
	}
	var held, text []string
	for _, h := range p.List {
		text = append(text, fmt.Sprintf("%s %d", h.Host, h.Step))
		if h.Held != "" {
			held = append(held, h.Held)
		}
		if s := p.Steps[h.Step]; h.Host == "f" && (!s.Unknown || s.Fetch != 7100 || s.Reboot || len(s.Packages) > 0) {
			t.Errorf("of a system that is not here it says %+v", s)
		} else if h.Host == "c" && s.Reboot {
			t.Errorf("the kernel is the same: %+v", s)
		}
	}
	if strings.Join(held, ", ") != "disk, fra moves, paused on the host: debugging" || len(text) != 7 {
		t.Errorf("%q %q", held, text)
	}
}

// What an action has to do with reboots.
func TestActions(t *testing.T) {
	c := newCache()
	old, next := c.add(t, "1", 5000, "k1"), c.add(t, "2", 6000, "k2")
	for action, want := range map[signing.Action]bool{signing.Auto: true, signing.Switch: false, signing.Boot: true, signing.Test: false, signing.DryActivate: false, signing.Reboot: true} {
		p, err := Of(t.Context(), &Ask{Entries: everyone(next, action), Hosts: []api.Host{host("a", old, nil)}}, c)
		if err != nil || p.Steps[0].Reboot != want || len(p.Steps[0].For) != 1 {
			t.Errorf("%s: %+v, %v", action, p, err)
		}
	}
	// Only what was booted counts: the new kernel is what the host has booted already.
	p, err := Of(t.Context(), &Ask{Entries: everyone(next, signing.Auto), Hosts: []api.Host{host("a", old, func(h *api.Host) { h.Status.Booted = next })}}, c)
	if err != nil || p.Steps[0].Reboot {
		t.Errorf("%+v, %v", p, err)
	}
}

// A release that the cache has not whole any more says so.
func TestCollected(t *testing.T) {
	c := newCache()
	old := c.add(t, "1", 5000, "k1")
	p, err := Of(t.Context(), &Ask{Entries: everyone("/nix/store/00000000000000000000000000000000-gone", signing.Auto), Hosts: []api.Host{host("a", old, nil)}}, c)
	if err != nil || p.Refused == nil || p.Refused.Kind != string(api.ClosureIncomplete) || !strings.Contains(p.Refused.Message, "it lacks 1 path") {
		t.Errorf("%+v, %v", p, err)
	}
}

// A fleet of clones is one difference, and the answer is small.
func TestLargeFleets(t *testing.T) {
	c := newCache()
	old, next := c.add(t, "1", 5000, "k1"), c.add(t, "2", 6000, "k1")
	var clones []api.Host
	for i := range 10_000 {
		clones = append(clones, host(fmt.Sprintf("web-%d", i), old, nil))
	}
	p, err := Of(t.Context(), &Ask{Entries: everyone(next, signing.Auto), Hosts: clones}, c)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(p)
	if err != nil || len(p.Steps) != 1 || p.Steps[0].Hosts != 10_000 || c.read != 2 || len(p.List) != plan.MaxHosts || p.MoreHosts != 10_000-plan.MaxHosts || len(text) > 64<<10 {
		t.Errorf("%d steps, %d closures read, %d hosts and %d more, %d bytes, %v", len(p.Steps), c.read, len(p.List), p.MoreHosts, len(text), err)
	}
	// Pets: each has its own system.
	var pets []api.Host
	var entries []signing.Entry
	for i := range plan.MaxSteps + 50 {
		name := fmt.Sprintf("pet-%03d", i)
		pets = append(pets, host(name, c.add(t, fmt.Sprintf("1.%d", i), 5000, "k1"), nil))
		entries = append(entries, signing.Entry{Target: name, StorePath: c.add(t, fmt.Sprintf("2.%d", i), 6000, "k1"), Action: signing.Auto})
	}
	p, err = Of(t.Context(), &Ask{Entries: entries, Hosts: pets}, c)
	if err != nil || len(p.Steps) != plan.MaxSteps || p.MoreSteps != 50 || p.Changing != plan.MaxSteps+50 {
		t.Errorf("%d steps and %d more of %d hosts, %v", len(p.Steps), p.MoreSteps, p.Changing, err)
	}
}

// Waves are told as the engine would open them.
func TestWaves(t *testing.T) {
	c := newCache()
	old, next := c.add(t, "1", 5000, "k1"), c.add(t, "2", 6000, "k1")
	var hosts []api.Host
	for i := range 20 {
		hosts = append(hosts, host(fmt.Sprintf("web-%d", i), old, func(h *api.Host) {
			h.Online = i%4 != 0
			h.Labels = map[string]string{"canary": fmt.Sprint(i < 2)}
		}))
	}
	rules, err := policy.Parse([]byte(`{"rollout": {"bake": "5m", "waves": [{"name": "canary", "select": "canary=true", "max": 1, "bake": "10m", "checks": ["errors"]}, {"max": "25%", "approve": true}, {"max": "100%"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Of(t.Context(), &Ask{From: 7, Policy: rules.Rollout, Entries: everyone(next, signing.Auto), Hosts: hosts}, c)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%+v", p.Waves)
	want := `[{Name:canary Select:canary=true Hosts:1 Offline:0 Bake:10m Approve:false Checks:[errors]} {Name:wave 2 Select: Hosts:5 Offline:0 Bake:5m Approve:true Checks:[]} {Name:wave 3 Select: Hosts:14 Offline:5 Bake:5m Approve:false Checks:[]}]`
	if got != want {
		t.Errorf("waves are\n%s\nwant\n%s", got, want)
	}
	if h := p.List[0]; h.Host != "web-1" || h.Wave != 1 { // web-0 is offline
		t.Errorf("the canary is %+v", h)
	}
}
