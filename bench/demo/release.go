package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/policy"
	"narwharf/signing"
)

// A channel is one of the demo's, and what is promoted to it.
type channel struct {
	name, policy string
	targets      []string
	fleet        *fleet
	builder      *builder
	alice, robot *api.Client
	push         string // token of who uploads

	mu   sync.Mutex
	n    int // releases that were made
	good versions
}

// channels are the demo's with their policies; bake is how long waves bake.
func channels(f *fleet, b *builder, bake time.Duration) ([]*channel, error) {
	alice, err := f.server.client("alice")
	if err != nil {
		return nil, err
	}
	robot, err := f.server.client("robot")
	if err != nil {
		return nil, err
	}
	push, err := f.server.token("ci")
	if err != nil {
		return nil, err
	}
	everyone := []string{signing.Everyone}
	list := []*channel{
		{name: "web", targets: everyone, policy: `{"rollout": {"waves": [
			{"name": "canary", "select": "canary=true", "bake": %[1]q, "checks": ["front-page"]},
			{"name": "a quarter", "max": "25%%", "bake": %[1]q, "checks": ["front-page"]}, {}],
			"max_concurrency": "20%%", "max_errors": "3%%", "offline_after": "1m"}, "reboot_slots": 4}`},
		{name: "db", targets: []string{"role:primary", "role:replica"}, policy: `{"rollout": {"waves": [
			{"name": "first replica", "select": "role=replica", "max": 1, "bake": %[1]q, "approve": true}, {}],
			"after": [{"first": "role=replica", "then": "role=primary", "if_offline": "skip"}],
			"max_concurrency": 1, "on_supersede": "queue", "offline_after": "1m"}}`},
		{name: "kiosks", targets: everyone, policy: `{"rollout": {"waves": [
			{"name": "lab", "select": "site=lab", "bake": %[1]q}, {"name": "a quarter of fra", "select": "site=fra", "max": "25%%", "bake": %[1]q},
			{"name": "fra", "select": "site=fra", "bake": %[1]q}, {}],
			"max_concurrency": "20%%", "max_errors": "10%%", "success_threshold": "75%%", "on_failure": "revert_wave", "offline_after": "1m"}}`},
	}
	for _, c := range list {
		c.policy = fmt.Sprintf(c.policy, bake.String())
		c.fleet, c.builder, c.alice, c.robot, c.push, c.good = f, b, alice, robot, push, firstVersions(c.name)
	}
	return list, nil
}

// obey sets the channel's policy. From then on releases go by it.
func (c *channel) obey(ctx context.Context) error {
	_, err := policy.Of(ctx, c.robot, c.name, []byte(c.policy))
	return err
}

// promote makes the next release and promotes it. A bad one is that of its hosts' going back. It
// returns the release's seq and its first system.
func (c *channel) promote(ctx context.Context, bad bool) (seq int64, first *system, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.good
	if c.n > 0 {
		v = v.after(c.name, c.n-1)
	}
	c.n++
	var entries []signing.Entry
	var made []*system
	for i, target := range c.targets {
		label := fmt.Sprintf("26.05.%d", 100+c.n)
		if i > 0 {
			label += "-" + target[len("role:"):]
		}
		s, err := c.builder.system(ctx, c.push, c.name, label, v)
		if err != nil {
			return 0, nil, err
		}
		c.fleet.known(fate{s, bad})
		made = append(made, s)
		entries = append(entries, signing.Entry{Target: target, StorePath: s.path, Closure: s.manifest.Digest(), System: hostSystem, Action: signing.Auto})
	}
	if !bad {
		c.good = v
	}
	seq, err = c.send(ctx, made, entries)
	return seq, made[0], err
}

// send signs a release as what follows the channel's last, whoever promoted that.
func (c *channel) send(ctx context.Context, made []*system, entries []signing.Entry) (int64, error) {
	was, err := c.alice.Channel(ctx, c.name)
	var e *api.Error
	if errors.As(err, &e) && e.Kind == api.NotFound {
		was, err = &api.Channel{}, nil
	}
	if err != nil {
		return 0, err
	}
	seq := was.Seq + 1
	head := signing.Head{
		Origin: origin(c.name), Channel: c.name, Seq: seq, Created: time.Now().UTC().Truncate(time.Second),
		Meta: map[string]string{"rev": fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, c.name, c.n)))[:40], "by": "alice", "url": fmt.Sprintf("https://ci.example.org/%s/%d", c.name, 1000+c.n)},
	}
	release, err := signing.NewRelease(head, entries, c.fleet.server.key)
	if err != nil {
		return 0, err
	}
	p := &api.Promotion{Release: *release}
	if was.Seq == 0 {
		p.Keys, p.Threshold = []string{c.fleet.server.key.Public().String()}, 1
	}
	for {
		_, err = c.alice.Promote(ctx, c.name, was.Seq, p, false)
		if !errors.As(err, &e) || e.Kind != api.ManifestMissing {
			return seq, err
		}
		for _, s := range made {
			if err := c.alice.PutClosure(ctx, s.manifest); err != nil {
				return 0, err
			}
		}
	}
}
