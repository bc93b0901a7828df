package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/sim"
)

// A fleet is all hosts, and what releases do to them.
type fleet struct {
	server  *server
	version string // of the agents
	say     func(format string, args ...any)
	hosts   []*host
	takes   time.Duration // a switch, at most

	power sync.Mutex // hosts are switched on and off one after the other
	mu    sync.Mutex
	fates map[string]fate // by store path of a system
}

// A fate is what becomes of the hosts that take a system.
type fate struct {
	system *system
	bad    bool
}

// newFleet names n hosts: six of ten serve the web, one has a database, three are kiosks.
func newFleet(s *server, n int, takes time.Duration, say func(string, ...any)) *fleet {
	f := &fleet{server: s, version: "1.4.0", takes: takes, say: say, fates: map[string]fate{}}
	count := map[string]int{}
	for i := range n {
		channel := []string{"web", "web", "kiosks", "web", "db", "web", "kiosks", "web", "kiosks", "web"}[i%10]
		k := count[channel]
		count[channel]++
		h := &host{name: fmt.Sprintf("%s-%03d", channel, k+1), channel: channel, fleet: f, have: map[narinfo.Path]*narinfo.Info{}}
		h.target, h.labels = h.name, map[string]string{"site": []string{"fra", "muc", "fra", "ams"}[k%4]}
		switch {
		case channel == "web" && k%20 == 0:
			h.labels["canary"] = "true"
		case channel == "db":
			h.labels["role"] = []string{"replica", "primary", "replica", "replica"}[k%4]
			h.target = "role:" + h.labels["role"]
		case channel == "kiosks" && k%10 == 0:
			h.labels["site"] = "lab"
		}
		f.hosts = append(f.hosts, h)
	}
	return f
}

// of are the hosts of a channel.
func (f *fleet) of(channel string) (list []*host) {
	for _, h := range f.hosts {
		if h.channel == channel {
			list = append(list, h)
		}
	}
	return list
}

// known says what becomes of the hosts that take a system.
func (f *fleet) known(of fate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fates[of.system.path] = of
}

// meet tells a host's world of a system that it has not met.
func (f *fleet) meet(h *host, path string) {
	f.mu.Lock()
	of, ok := f.fates[path]
	booted := f.fates[h.world.Booted].system
	f.mu.Unlock()
	if h.world.Systems[path] != nil || !ok {
		return
	}
	luck := fnv.New32a()
	_, _ = luck.Write([]byte(h.name + path))
	chance := luck.Sum32()
	s := &sim.System{Path: path, Takes: f.takes/4 + f.takes*time.Duration(chance%1000)*3/4000, Says: fine}
	if booted != nil && booted.kernel != of.system.kernel {
		s.Reboot = []string{"kernel"}
	}
	flaky := h.channel == "kiosks" && chance%40 == 0
	switch {
	case of.bad:
		s.Units, s.Says = []string{unitOf[h.channel]}, fmt.Sprintf(broken, unitOf[h.channel])
	case flaky:
		s.CheckFails = true
	}
	h.world.Add(s)
}

// unitOf is what fails where a release is bad.
var unitOf = map[string]string{"web": "nginx.service", "db": "postgresql.service", "kiosks": "signage.service"}

// What switch-to-configuration writes, colours included.
const (
	fine = "\x1b[1mactivating the configuration...\x1b[0m\nsetting up /etc...\nreloading user units...\nrestarting the following units: nscd.service, systemd-journald.service\n" +
		"\x1b[32mthe following new units were started:\x1b[0m run-credentials.mount\n"
	broken = "\x1b[1mactivating the configuration...\x1b[0m\nsetting up /etc...\nrestarting the following units: %[1]s\n" +
		"Job for %[1]s failed because the control process exited with error code.\nSee \"systemctl status %[1]s\" and \"journalctl -xeu %[1]s\" for details.\n" +
		"\x1b[31mwarning: the following units failed: %[1]s\x1b[0m\n\n× %[1]s\n     Active: \x1b[31mfailed\x1b[0m (Result: exit-code)\n    Process: ExecStartPre (code=exited, status=1/FAILURE)\n"
)

// start switches all hosts on, in a few seconds, and waits until the server has heard of each.
func (f *fleet) start(ctx context.Context, first map[string]*system) error {
	f.power.Lock()
	defer f.power.Unlock()
	for _, h := range f.hosts {
		if err := h.start(ctx, first[h.channel]); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	c, err := f.server.client("robot")
	if err != nil {
		return err
	}
	for _, h := range f.hosts {
		if err := h.label(ctx, c); err != nil {
			return fmt.Errorf("label %s: %w", h.name, err)
		}
	}
	return nil
}

// label sets the host's labels, as soon as the server knows it.
func (h *host) label(ctx context.Context, c *api.Client) error {
	for {
		_, err := c.PatchHost(ctx, h.name, map[string]any{"labels": h.labels})
		var e *api.Error
		if err == nil || !errors.As(err, &e) || e.Kind != api.NotFound {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// away switches n hosts of a channel off that are on, the last first. It returns their names.
func (f *fleet) away(channel string, n int) (names []string) {
	f.power.Lock()
	defer f.power.Unlock()
	hosts := f.of(channel)
	for i := len(hosts) - 1; i >= 0 && len(names) < n; i-- {
		if hosts[i].stop != nil {
			hosts[i].stop()
			names = append(names, hosts[i].name)
		}
	}
	return names
}

// back switches on what is off.
func (f *fleet) back(ctx context.Context, channel string) error {
	f.power.Lock()
	defer f.power.Unlock()
	for _, h := range f.of(channel) {
		if h.stop == nil {
			if err := h.start(ctx, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// stop switches all hosts off, and tells whether one did what no host may.
func (f *fleet) stop() error {
	f.power.Lock()
	defer f.power.Unlock()
	var all sync.WaitGroup
	for _, h := range f.hosts {
		if h.stop != nil {
			all.Go(h.stop)
		}
	}
	all.Wait()
	for _, h := range f.hosts {
		if h.world != nil && len(h.world.Violations) > 0 {
			return fmt.Errorf("%s: %s", h.name, h.world.Violations[0])
		}
	}
	return nil
}
