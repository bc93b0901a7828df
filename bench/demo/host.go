package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/desired"
	"narwharf/nixos/machine"
	"narwharf/nixos/probation"
	"narwharf/nixos/remote"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// A host is simulated: its agent is the real one.
type host struct {
	name, channel, target string
	labels                map[string]string
	fleet                 *fleet
	world                 *sim.World
	have                  map[narinfo.Path]*narinfo.Info // of its store
	stop                  func()                         // nil while it is off
}

// origin is what hosts of a channel know it as.
func origin(channel string) string { return "demo.example.org/" + channel }

// rules are a host's, short enough that somebody looks on.
func (h *host) rules(key signing.PublicKey) machine.Rules {
	return machine.Rules{
		Rules: desired.Rules{
			Trust:  signing.Trust{Keys: []signing.PublicKey{key}, Threshold: 1, Origin: origin(h.channel), Channel: h.channel, Target: h.target},
			System: hostSystem, StoreDir: storeDir, Reboot: desired.RebootServer, Directives: desired.ObeyLimited, Retries: 8,
			Minimum: h.fleet.takes / 2, ConfirmTimeout: 20 * time.Second,
		},
		Probation: probation.Rules{Settle: h.fleet.takes / 3}, Interval: h.fleet.takes / 6, CheckTime: 10 * time.Second, Jitter: h.fleet.takes / 3,
	}
}

// start switches the host on, until stop is called. A host that has never run was installed with
// a system.
func (h *host) start(ctx context.Context, first *system) error {
	if h.world == nil {
		h.world = sim.New(&sim.System{Path: first.path})
		h.keep(first.infos)
	}
	client, err := h.fleet.server.client("hosts")
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	to := remote.New(remote.Options{Client: client, Host: h.name, Channel: h.channel, Target: h.target, Log: log})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		live := h.world.Live(h.name, to)
		for ctx.Err() == nil {
			h.life(ctx, live)
		}
		to.Close(context.Background()) // nothing is left to be told: it was switched off
	}()
	h.stop = func() {
		cancel()
		<-ended
		h.stop = nil
	}
	return nil
}

// life is the agent's, until the host reboots or is switched off.
func (h *host) life(ctx context.Context, live *sim.Live) {
	defer func() {
		if p := recover(); p != nil {
			if _, rebooted := p.(sim.Crash); !rebooted {
				panic(p)
			}
		}
	}()
	agent := live.Agent(h.rules(h.fleet.server.key.Public()))
	agent.Version = h.fleet.version
	agent.Host.Store = &store{live, h}
	agent.Stager.Host = agent.Host
	if err := agent.Run(ctx, nil); err != nil && ctx.Err() == nil {
		h.fleet.say("%s: %v", h.name, err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (h *host) keep(infos []*narinfo.Info) {
	for _, i := range infos {
		h.have[i.Path] = i
	}
}

// A store is a host's: it knows true closures, which it fetches from the cache.
type store struct {
	nixos.Store // the world's, which knows systems alone
	host        *host
}

// Path implements nixos.Store.
func (s *store) Path(ctx context.Context, p narinfo.Path) (*nixos.StorePath, error) {
	if strings.HasPrefix(p.Name(), "nixos-system-") {
		s.host.fleet.meet(s.host, p.In(storeDir))
		if valid, err := s.Store.Path(ctx, p); valid == nil || err != nil {
			return nil, err
		}
	}
	info := s.host.have[p]
	if info == nil {
		return nil, nil
	}
	return &nixos.StorePath{Info: info}, nil
}

// Realise implements nixos.Store.
func (s *store) Realise(ctx context.Context, p narinfo.Path, root string, closure []signing.Line) error {
	for _, l := range closure {
		if s.host.have[l.Path] != nil {
			continue
		}
		info, err := s.host.fetch(ctx, l.Path)
		if err != nil {
			return fmt.Errorf("substitute %s: %w", l.Path, err)
		}
		s.host.have[l.Path] = info
	}
	return s.Store.Realise(ctx, p, root, closure)
}

// fetch reads a path of the cache as Nix does, and throws it away.
func (h *host) fetch(ctx context.Context, p narinfo.Path) (*narinfo.Info, error) {
	text, err := h.get(ctx, p.Hash()+".narinfo", true)
	if err != nil {
		return nil, err
	}
	info, err := narinfo.Parse(text)
	if err == nil {
		_, err = h.get(ctx, info.URL, false)
	}
	return info, err
}

func (h *host) get(ctx context.Context, name string, keep bool) (text []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.fleet.server.url+"/"+name, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	if keep {
		return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return nil, err
}
