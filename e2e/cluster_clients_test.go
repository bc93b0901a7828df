package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/e2e/history"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// clients use a cluster and write down what they see: who promotes, who uploads, and hosts.
type clients struct {
	c     *cluster
	log   *history.Log
	key   signing.SecretKey
	token string // of hosts
	hosts map[string][]string
	quiet atomic.Bool // what is uploaded beside promotes may be collected

	promotes chan string // whom a promote was just sent to; may be full

	stopWrites, stopAll context.CancelFunc
	writes, all         sync.WaitGroup
	done                sync.Map // channel/host -> seq that it has reported the end of

	mu    sync.Mutex
	paths []*Path // that were answered for
	alien []string
}

// startClients sets two channels up, each with hosts: "web" has no rules and two who promote, which race;
// in "waves" two hosts at a time may begin.
func startClients(c *cluster, hosts int, collected bool) *clients {
	c.t.Helper()
	key, err := signing.ParseSecretKey(NewKey("deploy-1").Secret())
	if err != nil {
		c.t.Fatal(err)
	}
	w := &clients{c: c, log: history.NewLog(), key: key, token: c.all[0].Token("hosts", "follow:*", "pull"), hosts: map[string][]string{}, promotes: make(chan string, 1)}
	w.quiet.Store(collected)
	c.all[0].setPolicy(c.admin, "waves", `{"rollout": {"waves": [{}], "max_concurrency": 2, "offline_after": "1h"}}`)
	writes, stopWrites := context.WithCancel(context.Background())
	all, stopAll := context.WithCancel(context.Background())
	w.stopWrites, w.stopAll = stopWrites, stopAll
	c.t.Cleanup(func() { stopWrites(); stopAll(); w.writes.Wait(); w.all.Wait() })
	for _, channel := range []string{"web", "waves"} {
		for i := range hosts {
			h := &simHost{w: w, channel: channel, name: fmt.Sprintf("%s-%d", channel, i)}
			w.hosts[channel] = append(w.hosts[channel], h.name)
			w.all.Go(func() { h.live(all) })
		}
	}
	w.writes.Go(func() { w.race(writes, "ci-1") })
	w.writes.Go(func() { w.race(writes, "ci-2") })
	w.writes.Go(func() { w.waves(writes) })
	w.writes.Go(func() { w.upload(writes) })
	w.writes.Go(func() { w.look(writes) })
	return w
}

// client is one of the API: of the balancer, or with direct of any one server.
func (w *clients) client(token string, direct bool, self api.Self) (*api.Client, string) {
	url := w.c.url
	if direct {
		url = w.c.all[mrand.IntN(len(w.c.all))].URL()
	}
	c, err := api.NewClient(api.ClientOptions{Servers: []string{url}, Token: token, Timeout: 8 * time.Second, Self: self})
	if err != nil {
		panic(err)
	}
	return c, url
}

// outcome sorts what a call came to: who was told no knows that nothing was done.
func outcome(err error) history.Outcome {
	var e *api.Error
	switch {
	case err == nil:
		return history.OK
	case errors.As(err, &e) && e.Status < 500:
		return history.Refused
	}
	return history.Unknown
}

// race promotes to web, as fast as it goes, against another.
func (w *clients) race(ctx context.Context, name string) {
	for ctx.Err() == nil {
		if seq, ok := w.read(ctx, "web", name); ok {
			w.promote(ctx, "web", name, seq)
		}
		pause(ctx, 50*time.Millisecond, 250*time.Millisecond)
	}
}

// waves promotes to waves when all of its hosts are done with the release before.
func (w *clients) waves(ctx context.Context) {
	for ctx.Err() == nil {
		seq, ok := w.read(ctx, "waves", "ci-3")
		for _, host := range w.hosts["waves"] {
			done, _ := w.done.Load("waves/" + host)
			is, _ := done.(int64)
			ok = ok && is >= seq
		}
		if ok {
			w.promote(ctx, "waves", "ci-3", seq)
		}
		pause(ctx, 100*time.Millisecond, 200*time.Millisecond)
	}
}

// read looks at which release a channel is.
func (w *clients) read(ctx context.Context, channel, name string) (seq int64, ok bool) {
	c, _ := w.client(w.c.admin, mrand.IntN(2) == 0, api.Self{})
	op := history.Op{Kind: history.Read, Client: name, Key: channel, Call: w.log.Now(), Outcome: history.OK}
	is, err := c.Channel(ctx, channel)
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Kind == api.NotFound:
		w.log.Add(op)
		return 0, true
	case err != nil || is.Release == nil:
		return 0, false
	}
	_, entries, err := is.Release.Check()
	if err != nil {
		w.complain("a release of %s: %v", channel, err)
		return 0, false
	}
	op.At, op.ID = is.Seq, entries[0].StorePath
	w.log.Add(op)
	return is.Seq, true
}

// promote uploads a small closure and promotes it as what follows a seq.
func (w *clients) promote(ctx context.Context, channel, name string, from int64) {
	leaf := NewPath("leaf", RandomNAR(mrand.Uint64(), 3000))
	system := NewPath("system", RandomNAR(mrand.Uint64(), 30_000), leaf)
	up := NewUploader(w.c.t, w.c.url, w.c.admin)
	up.Client.Timeout = 8 * time.Second
	if _, err := up.TryUpload(leaf, system); err != nil {
		return
	}
	var infos []*narinfo.Info
	for _, p := range []*Path{leaf, system} {
		doc, _ := up.Describe(p)
		info, err := narinfo.Parse([]byte(doc.String()))
		if err != nil {
			w.complain("%v", err)
			return
		}
		infos = append(infos, info)
	}
	manifest, err := signing.NewManifest(infos)
	if err != nil {
		w.complain("%v", err)
		return
	}
	seq := from + 1
	head := signing.Head{Origin: "cluster/" + channel, Channel: channel, Seq: seq, Created: time.Now().UTC().Truncate(time.Second)}
	release, err := signing.NewRelease(head, []signing.Entry{{Target: signing.Everyone, StorePath: storePath(system), Closure: manifest.Digest(), System: "x86_64-linux", Action: signing.Auto}}, w.key)
	if err != nil {
		w.complain("%v", err)
		return
	}
	p := &api.Promotion{Release: *release, Kind: api.KindPath, Keys: []string{w.key.Public().String()}, Threshold: 1}
	if from > 0 {
		p.Kind, p.Keys, p.Threshold = "", nil, 0
	}
	w.send(ctx, history.Op{Kind: history.Promote, Client: name, Key: channel, From: from, At: seq, ID: storePath(system)}, p, manifest, leaf, system)
}

// send sends a promotion, and notes what came of it.
func (w *clients) send(ctx context.Context, op history.Op, p *api.Promotion, manifest *signing.Manifest, paths ...*Path) {
	c, url := w.client(w.c.admin, mrand.IntN(2) == 0, api.Self{})
	if err := c.PutClosure(ctx, manifest); err != nil {
		return
	}
	op.Call = w.log.Now()
	select {
	case w.promotes <- url:
	default:
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
	defer cancel()
	_, err := c.Promote(within, op.Key, op.From, p, false)
	op.Outcome = outcome(err)
	var e *api.Error
	if op.Outcome == history.Refused && errors.As(err, &e) && e.Kind != api.RaceLost {
		op.From = -1 // for another reason than who won
		if e.Kind != api.ClosureIncomplete || !w.quiet.Load() {
			w.complain("a promote was refused: %v", err)
		}
	}
	w.log.Add(op)
	if op.Outcome == history.OK && !w.quiet.Load() {
		w.keep(op.Call, paths...)
	}
}

// keep notes that paths were answered for.
func (w *clients) keep(call time.Duration, paths ...*Path) {
	for _, p := range paths {
		w.log.Add(history.Op{Kind: history.Upload, Client: "ci", Key: p.Hash(), Call: call, Outcome: history.OK})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths = append(w.paths, paths...)
}

// upload has two send one closure at once, again and again, the parts of it to any server.
func (w *clients) upload(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		var paths []*Path
		for j := range 4 {
			paths = append(paths, NewPath(fmt.Sprintf("u%d-%d", i, j), RandomNAR(uint64(1000*i+j), 2000+100_000*(j%2)), paths...))
		}
		call := w.log.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				up := NewUploader(w.c.t, w.c.url, w.c.admin)
				up.Client.Timeout = 8 * time.Second
				accepted, _ := up.TryUpload(paths...)
				for _, p := range paths {
					for _, hash := range accepted {
						if hash == p.Hash() && !w.quiet.Load() {
							w.keep(call, p)
						}
					}
				}
			})
		}
		wg.Wait()
		pause(ctx, 50*time.Millisecond, 150*time.Millisecond)
	}
}

// look asks any server for paths that were answered for, and what it shows of hosts.
func (w *clients) look(ctx context.Context) {
	for ctx.Err() == nil {
		w.mu.Lock()
		var p *Path
		if len(w.paths) > 0 {
			p = w.paths[mrand.IntN(len(w.paths))]
		}
		w.mu.Unlock()
		if p != nil {
			w.fetch(p)
		}
		for channel, hosts := range w.hosts {
			w.show(ctx, channel, hosts[mrand.IntN(len(hosts))])
		}
		pause(ctx, 5*time.Millisecond, 20*time.Millisecond)
	}
}

func (w *clients) fetch(p *Path) {
	s := w.c.all[mrand.IntN(len(w.c.all))]
	up := NewUploader(w.c.t, s.URL(), "")
	up.Client.Timeout = 8 * time.Second
	op := history.Op{Kind: history.Fetch, Client: s.Addr(), Key: p.Hash(), Call: w.log.Now(), Outcome: history.Unknown}
	switch reply, err := up.Try(http.MethodGet, "/"+p.Hash()+".narinfo", "", nil); {
	case err != nil:
	case reply.Status == http.StatusOK:
		op.Outcome = history.OK
	case reply.Status == http.StatusNotFound:
		op.Outcome = history.Refused
	}
	w.log.Add(op)
}

func (w *clients) show(ctx context.Context, channel, host string) {
	c, url := w.client(w.c.admin, true, api.Self{})
	op := history.Op{Kind: history.Status, Client: url, Key: host, Call: w.log.Now(), Outcome: history.OK}
	h, err := c.Host(ctx, host)
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Status == http.StatusNotFound:
	case err != nil:
		return
	case h.Status != nil:
		op.At = h.Status.Counter
	}
	w.log.Add(op)
}

func (w *clients) complain(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alien = append(w.alien, fmt.Sprintf(format, args...))
}

func pause(ctx context.Context, from, to time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(from + mrand.N(to-from)):
	}
}

// simHost is a host as the servers see it: it asks any of them, and reports what becomes of it.
type simHost struct {
	w             *clients
	channel, name string
	self          api.Self
	counter       int64
	accepted      int64 // seq that it has staged
	done          int64 // seq that it has ended
	current       string
	pointer       *signing.Pointer
}

func (h *simHost) live(ctx context.Context) {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	h.self = api.Self{Instance: hex.EncodeToString(id), Machine: hex.EncodeToString(id), BootID: "b1"}
	h.current = "/nix/store/" + NewPath("first", nil).Base
	h.report(ctx, api.Idle, 0, "")
	etag := ""
	for ctx.Err() == nil {
		c, _ := h.w.client(h.w.token, false, h.self)
		call := h.w.log.Now()
		d, next, err := c.Desired(ctx, h.name, h.channel, h.name, api.Have{Seq: h.accepted}, etag, 5*time.Second)
		switch {
		case errors.Is(err, api.ErrNotModified):
		case err != nil:
			etag = ""
			if outcome(err) == history.Refused {
				h.w.complain("%s is told: %v", h.name, err)
			}
			pause(ctx, 50*time.Millisecond, 250*time.Millisecond)
		default:
			etag = next
			h.obey(ctx, call, d)
		}
	}
}

// obey does what a host is told.
func (h *simHost) obey(ctx context.Context, call time.Duration, d *api.Desired) {
	h.w.log.Add(history.Op{Kind: history.Seen, Client: h.name, Key: h.channel, At: d.Seq, Call: call, Outcome: history.OK})
	if d.Pointer == nil || d.Seq < h.accepted {
		return
	}
	entry, err := signing.ParseEntry(d.Pointer.Entry)
	if err != nil {
		h.w.complain("%s: %v", h.name, err)
		return
	}
	if d.Seq > h.accepted {
		h.accepted, h.pointer = d.Seq, d.Pointer
		h.report(ctx, api.Staged, d.Seq, entry.StorePath)
	}
	if d.Grant == nil || d.Grant.Seq != d.Seq || d.Seq == h.done {
		return
	}
	h.w.log.Add(history.Op{Kind: history.Grant, Client: h.name, Key: h.channel, At: d.Seq, ID: d.Grant.ID, Call: call, Outcome: history.OK})
	h.report(ctx, api.Activating, d.Seq, entry.StorePath)
	pause(ctx, 20*time.Millisecond, 60*time.Millisecond)
	h.current = entry.StorePath
	done := history.Op{Kind: history.Done, Client: h.name, Key: h.channel, At: d.Seq, Call: h.w.log.Now(), Outcome: history.OK}
	h.report(ctx, api.OK, d.Seq, entry.StorePath)
	h.w.log.Add(done)
	h.done = d.Seq
	h.w.done.Store(h.channel+"/"+h.name, h.done)
}

// report sends a report until it is answered.
func (h *simHost) report(ctx context.Context, state api.State, seq int64, wanted string) {
	h.counter++
	st := &api.Status{
		Agent: "0", StartID: 1, Counter: h.counter, Channel: h.channel, Target: h.name, System: "x86_64-linux", BootID: "b1", State: state,
		Seq: seq, Action: "auto", Wanted: wanted, Current: h.current, Booted: h.current, Profile: h.current, Confirmed: h.current,
		HighestSeq: h.accepted, Head: h.pointer, CurrentGeneration: 1, BootGeneration: 1,
	}
	if seq > 0 {
		st.Attempt = fmt.Sprintf("a%d", seq)
	}
	for ctx.Err() == nil {
		c, _ := h.w.client(h.w.token, false, h.self)
		op := history.Op{Kind: history.Report, Client: h.name, Key: h.name, At: h.counter, Call: h.w.log.Now()}
		err := c.PutStatus(ctx, h.name, st, false)
		op.Outcome = outcome(err)
		if op.Outcome == history.Refused {
			h.w.complain("the report of %s is refused: %v", h.name, err)
		}
		h.w.log.Add(op)
		if op.Outcome != history.Unknown {
			return
		}
		pause(ctx, 50*time.Millisecond, 250*time.Millisecond)
	}
}

// finish stops whoever writes, waits until all hosts are where they are to be, and holds what was seen against the rules.
func (w *clients) finish(t *testing.T, struck, healed time.Duration) (ops []history.Op, wrong []string) {
	t.Helper()
	w.stopWrites()
	w.writes.Wait()
	const within = 30 * time.Second
	for channel, hosts := range w.hosts {
		seq := int64(0)
		soon(t, within, func() string {
			var ok bool
			if seq, ok = w.read(context.Background(), channel, "last"); !ok {
				return "nobody says which release " + channel + " has"
			}
			return ""
		})
		soon(t, within, func() string {
			for _, host := range hosts {
				is, _ := w.done.Load(channel + "/" + host)
				if done, _ := is.(int64); done < seq {
					return fmt.Sprintf("%s is done with %d and not with %d: %s", host, done, seq, NewUploader(t, w.c.url, w.c.admin).Get("/api/v1/hosts/"+host).Body)
				}
			}
			return ""
		})
		for _, host := range hosts {
			for range 3 {
				w.show(context.Background(), channel, host)
			}
		}
	}
	w.stopAll()
	w.all.Wait()
	for i, p := range w.paths { // there is nobody any more who adds to them
		w.fetch(p)
		if i%10 == 0 {
			NewUploader(t, w.c.all[i/10%len(w.c.all)].URL(), "").Fetch(p)
		}
	}
	ops = w.log.Ops()
	wrong = history.Check(ops, history.Rules{AtOnce: map[string]int{"waves": 2}, Hosts: w.hosts, Within: within, Lag: time.Second, Struck: struck, Healed: healed})
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.Failed() || len(wrong)+len(w.alien) > 0 {
		var b bytes.Buffer
		for _, o := range ops {
			text, _ := json.Marshal(o)
			b.Write(append(text, '\n'))
		}
		name := filepath.Join(os.TempDir(), "history-"+strings.NewReplacer("/", "-", " ", "_").Replace(t.Name())+".json")
		w.c.all[0].writeFile(name, b.String(), 0o644)
		t.Logf("the history is in %s", name)
	}
	return ops, append(wrong, w.alien...)
}
