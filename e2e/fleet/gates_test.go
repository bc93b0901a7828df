package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const prometheus = "http://" + serverAddress + ":9090"

// TestGates is what a roll-out waits for, or goes past, on three hosts of which h1 is the canary, h2 a database, h3 an application.
func TestGates(t *testing.T) {
	onlyLong(t)
	need(t)
	t.Parallel()
	fw := followConfigured(t, 3, func(toml string) string {
		return toml + fmt.Sprintf("\n[[check]]\nname = \"error-rate\"\nprometheus = %q\nquery = \"max(shop_error_rate)\"\nbound = \"< 0.01\"\ninterval = \"1s\"\n", prometheus)
	}, func(toml string) string { return toml }, func(_ *Fleet, _ string, h *HostOptions) {
		h.System.Etc = shop("0.001")
	})
	all := []string{"h1", "h2", "h3"}
	slow := func(s *System) { s.Misbehave, s.Seconds = []Misbehaviour{Slow}, 6 } // there is time to say something meanwhile
	v := fw.systems(map[string]func(*System){
		"a": sells("0.001"), "b": sells("0.001"), "c": sells("0.002"), "c-errs": sells("0.25"), "d": asItIs, "d-bad": misbehave(Unhealthy), "e": asItIs,
		"f": slow, "g": asItIs, "h": asItIs, "i": asItIs, "k": asItIs, "l": asItIs, "m": func(s *System) { s.Kernel = "6.2" },
	})
	a := v["a"]
	fw.promote(0, a)
	for host, label := range map[string]string{"h1": "canary=true", "h2": "role=db", "h3": "role=app"} {
		fw.CI().Must("narwharf", "host", "label", host, label)
	}
	const waves = `{"rollout":{"waves":[{"name":"canary","select":"canary=true","max":1,"bake":%q%s},{"max":"100%%"}]}}`

	fw.tells(t, "9: somebody has to say yes", func(s *Story, fw *rollingout) {
		fw.policy(fmt.Sprintf(waves, "0s", `,"approve":true`))
		b := v["b"]
		looked := fw.sights()
		begin := time.Now()
		seq := fw.send(b)
		fw.wait("approval", 2)
		s.Took("promote to waits for a yes", time.Since(begin))
		if r := fw.shown("web"); r.State != "running" || r.Waves[0].State != "approval" {
			s.Errorf("%+v", r)
		}
		fw.run(b, "b", "ok", "h1")
		fw.run(a, "a", "waiting", "h2", "h3")
		yes := time.Now()
		fw.says("advance")
		fw.over("web", seq, "completed")
		s.Took("yes to completed", time.Since(yes))
		fw.run(b, "b", "ok")
		seen := looked()
		for _, host := range all[1:] {
			if began := seen.began(host, seq); began.Before(yes) {
				s.Errorf("%s began %s, and the yes came %s", host, began, yes)
			}
		}
		if r := fw.shown("web"); !strings.Contains(r.Waves[0].Approved, "a test") {
			s.Errorf("nobody said why: %+v", r)
		}
		a = b
	})
	fw.tells(t, "9: a Prometheus gate stops it", func(s *Story, fw *rollingout) {
		fw.scrape()
		fw.policy(strings.Replace(fmt.Sprintf(waves, "5s", `,"checks":["error-rate"]`), `}]}}`, `}],"on_failure":"revert_all"}}`, 1))
		good := v["c"]
		begin := time.Now()
		fw.over("web", fw.send(good), "completed")
		s.Took("good: promote to completed", time.Since(begin))
		fw.run(good, "c", "ok")

		looked := fw.sights()
		begin = time.Now()
		seq := fw.send(v["c-errs"]) // its own health check is fine
		fw.over("web", seq, "halted")
		s.Took("bad: promote to halted", time.Since(begin))
		if r := fw.shown("web"); !strings.Contains(r.Why, "the check error-rate says no: 0.25") {
			s.Errorf("why: %+v", r)
		}
		Eventually(s, 3*time.Minute, "the canary is back", func() error {
			if r := fw.reported()["h1"]; r.Status.State != "reverted" {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		s.Took("to all back", time.Since(begin))
		fw.run(good, "c", "reverted", "h1")
		fw.run(good, "c", "waiting", "h2", "h3")
		if took := looked().took(seq); !slices.Equal(took, []string{"h1"}) {
			s.Errorf("%v took it", took)
		}
		a = good
	})
	fw.tells(t, "db before app", func(s *Story, fw *rollingout) {
		fw.policy(`{"rollout":{"waves":[{}],"after":[{"first":"role=db","then":"role=app","if_offline":"wait"}]}}`)
		d := v["d"]
		looked := fw.sights()
		begin := time.Now()
		seq := fw.send(d)
		fw.over("web", seq, "completed")
		s.Took("promote to completed", time.Since(begin))
		fw.run(d, "d", "ok")
		looked().inOrder(s, seq, []string{"h2"}, []string{"h3"})

		looked = fw.sights()
		seq = fw.send("h1="+v["e"], "h2="+v["d-bad"], "h3="+v["e"])
		fw.over("web", seq, "halted")
		fw.run(d, "d", "reverted", "h2")
		fw.run(d, "d", "waiting", "h3")
		if took := looked().took(seq); slices.Contains(took, "h3") {
			s.Errorf("%v took it", took)
		}
		a = d
	})
	fw.tells(t, "9: a newer release in the middle of a wave", func(s *Story, fw *rollingout) {
		const one = `{"rollout":{"waves":[{"name":"canary","select":"canary=true","max":1},{"max":"100%%"}],"max_concurrency":1,"on_supersede":%q}}`
		begin := time.Now()
		fw.policy(fmt.Sprintf(one, "replace"))
		looked := fw.sights()
		first := fw.send(v["f"])
		second := fw.second(first)
		next := fw.send(v["g"])
		fw.second(next)
		fw.policy(fmt.Sprintf(one, "reject"))
		if out := fw.narwharf("promote", "web", v["h"]); out.Code == 0 || !strings.Contains(out.Stderr, "on its way") {
			s.Errorf("it is taken: %v", out)
		}
		fw.over("web", next, "completed")
		s.Took("replace: both releases", time.Since(begin))
		fw.run(v["g"], "g", "ok")
		seen := looked()
		if took := seen.took(first); !slices.Equal(took, []string{"h1", second}) {
			s.Errorf("%v took what was superseded, when %s was at it", took, second)
		}
		if began, ended := seen.began(second, next), seen.first(second, first, "ok"); began.IsZero() || ended.IsZero() || began.Before(ended) {
			s.Errorf("%s did not end what it began: %v, %v", second, began, ended)
		}
		if most := seen.most(all...); most != 1 {
			s.Errorf("%d at a time, want one", most)
		}
		if r := fw.shown(fmt.Sprintf("web@%d", first)); r.State != "superseded" {
			s.Errorf("%+v", r)
		}

		begin = time.Now()
		fw.policy(fmt.Sprintf(one, "queue"))
		looked = fw.sights()
		first = fw.send(v["h"])
		fw.second(first)
		next = fw.send(v["i"])
		fw.over("web", next, "completed")
		s.Took("queue: both releases", time.Since(begin))
		fw.run(v["i"], "i", "ok")
		seen = looked()
		for _, host := range all {
			for _, other := range all {
				if began, well := seen.began(host, next), seen.first(other, first, "ok"); well.IsZero() || began.Before(well) {
					s.Errorf("%s began with what was queued %s, and %s was well with the one before it %s", host, began, other, well)
				}
			}
		}
		a = v["i"]
	})
	fw.tells(t, "9: promote --now", func(s *Story, fw *rollingout) {
		fw.policy(fmt.Sprintf(waves, "10h", `,"approve":true,"checks":["error-rate"]`))
		k, l := v["k"], v["l"]
		if out := fw.narwharf("promote", "web", l, "--now"); out.Code == 0 || !strings.Contains(out.Stderr, "reason") {
			s.Errorf("it is taken without a reason: %v", out)
		}
		seq := fw.send(k)
		Eventually(s, 3*time.Minute, "the canary runs it", func() error {
			if got := fw.runs(k); !slices.Equal(got, []string{"h1"}) {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
		fw.CI().Must("narwharf", "host", "hold", "h3", "--reason", "a backup runs")
		looked := fw.sights()
		begin := time.Now()
		out := fw.narwharf("promote", "web", l, "--now", "--reason", "CVE-2026-1234", "--wait")
		took := time.Since(begin)
		s.Took("promote --now to completed", took)
		if out.Code != 0 || fw.seq() != seq+1 {
			s.Fatalf("%v", out)
		}
		if r := fw.shown("web"); r.State != "completed" || !r.Now {
			s.Errorf("%+v", r)
		}
		fw.run(l, "l", "ok", "h1", "h2")
		seen := looked()
		if began := seen.took(seq + 1); !slices.Equal(began, all[:2]) {
			s.Errorf("%v took it", began)
		}
		if took > 20*time.Second {
			t.Logf("it took %s from %s: %+v", took, begin.Format(time.TimeOnly), seen)
		}
		if log := fw.CI().Must("narwharf", "events", "web", "--json", "--limit", "0"); !strings.Contains(log, "CVE-2026-1234") {
			s.Errorf("the log does not say why")
		}
		fw.CI().Must("narwharf", "host", "unhold", "h3") // no release goes past a hold; it is late
		Eventually(s, 3*time.Minute, "h3 runs it", func() error {
			if got := fw.runs(l); !slices.Equal(got, all) {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
		a = l
	})
	fw.tells(t, "9: a kernel: canary first, then one reboot at a time", func(s *Story, fw *rollingout) {
		fw.policy(strings.Replace(fmt.Sprintf(waves, "1s", ""), `{"rollout"`, `{"reboot_slots":1,"rollout"`, 1))
		kernel := v["m"]
		boots := map[string]int{}
		for _, h := range fw.Hosts() {
			boots[h.Name()] = h.Boots()
		}
		looked := fw.sights()
		begin := time.Now()
		seq := fw.send(kernel)
		away := fw.watchReboots(seq)
		fw.over("web", seq, "completed")
		s.Took("promote to completed", time.Since(begin))
		if most := away(); most != 1 {
			s.Errorf("%d hosts were away at a time, want one", most)
		}
		for _, h := range fw.Hosts() {
			h.AwaitBoot(boots[h.Name()] + 1)
			if st := h.State(); st.Booted != kernel || h.Boots() != boots[h.Name()]+1 {
				s.Errorf("%s: %d boots, %+v", h.Name(), h.Boots(), st)
			}
		}
		fw.run(kernel, "m", "ok")
		looked().inOrder(s, seq, []string{"h1"}, []string{"h2", "h3"})
	})
}

// second waits until a host after the canary is in probation with a release, and tells which.
func (fw *rollingout) second(seq int64) (host string) {
	fw.T.Helper()
	Eventually(fw.T, 3*time.Minute, "a host of the second wave is at it", func() error {
		for _, h := range fw.Hosts() {
			if j, err := h.agentJournal(); err == nil && h.Name() != "h1" && j.Seq == seq && (j.State == "activating" || j.State == "probation") {
				host = h.Name()
				return nil
			}
		}
		return fmt.Errorf("%+v", fw.reported())
	})
	return host
}

// shop is files of /etc by which the host's answer on port 8000 is a metric for Prometheus.
func shop(rate string) map[string]string {
	return map[string]string{"web/respond": "#!/bin/sh\nwhile IFS= read -r line && [ ${#line} -gt 1 ]; do :; done\n" +
		"printf 'HTTP/1.0 200 OK\\r\\nContent-Type: text/plain; version=0.0.4\\r\\n\\r\\nshop_error_rate " + rate + "\\n'\n"}
}

// sells gives a system an error rate.
func sells(rate string) func(*System) { return func(s *System) { s.Etc = shop(rate) } }

// scrape runs a Prometheus beside the server, which asks the hosts, until it has an answer.
func (fw *rollingout) scrape() {
	fw.T.Helper()
	const file = "/root/prometheus.yml"
	s := fw.Server()
	s.Install("/usr/bin/prometheus", "/usr/local/bin/prometheus")
	var targets []string
	for _, name := range fw.names {
		targets = append(targets, fmt.Sprintf("%q", name+":8000"))
	}
	s.WriteFile(file, fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs: [{job_name: shop, metrics_path: /, static_configs: [{targets: [%s]}]}]\n", strings.Join(targets, ", ")), 0o644)
	job := s.Machine.Start("/usr/local/bin/prometheus", "--config.file="+file, "--storage.tsdb.path=/root/prometheus", "--web.listen-address="+serverAddress+":9090")
	fw.T.Cleanup(job.Kill)
	Eventually(fw.T, 3*time.Minute, "Prometheus knows of the hosts", func() error {
		if job.Ended() {
			fw.T.Fatalf("Prometheus ended: %v", job.Wait(time.Second))
		}
		if out := fw.CI().Narwharf("check", "ask", "error-rate"); out.Code != 0 {
			return fmt.Errorf("%v", out)
		}
		return nil
	})
}
