package fleet

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// site is a fleet whose hosts are at a site: they ask the centre what to run, over a line, and fetch at the edge,
// which is private.
type site struct {
	*follower
	edgeConfig string
	edgeToken  string
}

// newSite starts it. The line is what leaves the machine of the centre.
func newSite(t *testing.T, hosts int) *site {
	t.Helper()
	st := &site{follower: new(follower)}
	token := ""
	fleet := New(t, Options{
		Hosts: hosts,
		Edge: func(f *Fleet, _ string) string {
			f.Edge().WriteFile("/srv/narwharf/centre-token", f.Server().Token("edge", "pull")+"\n", 0o600)
			st.edgeConfig = fmt.Sprintf(`listen = ["%s:80"]
data_dir = "/srv/narwharf/data"
[[upstream]]
url = "http://cache"
public_keys = [%q, %q]
token_file = "centre-token"
#rate
[mirror]
channels = ["web"]
[access]
anonymous = []
`, edgeAddress, f.Key("cache-1"), f.Key("ci-1"))
			return st.edgeConfig
		},
		System: func(f *Fleet) System {
			if token == "" {
				token = f.Server().Token("hosts", "follow:web", "pull")
				st.edgeToken = f.Edge().Token("hosts", "pull")
				f.CI().Token(f.Server().Token("ci-promotes", "push", "promote:*", "operate"))
				st.agent = f.CI().Agent()
				st.config = "cache_url = \"http://edge\"\ncache_token_file = \"/var/lib/narwharf/edge-token\"\n" + agentConfig(f.CI().NewKey("deploy-1"), f.Key("ci-1"))
			}
			return System{Version: "0", Agent: st.agent, AgentConfig: st.config}
		},
		Host: func(_ *Fleet, _ string, h *HostOptions) {
			h.Files["var/lib/narwharf/token"] = token
			h.Files["var/lib/narwharf/edge-token"] = st.edgeToken
		},
	})
	st.Fleet = fleet
	return st
}

// network runs ip or tc beside the machines.
func (st *site) network(args ...string) string {
	st.T.Helper()
	out, err := execute(st.space.argv("", args...), "", 0)
	if err != nil || out.Code != 0 {
		st.T.Fatalf("%v: %v %v", args, err, out)
	}
	return out.Stdout
}

// cut takes the line away, or gives it back: nothing comes and nobody says so.
func (st *site) cut(cut bool) {
	st.T.Helper()
	state := "up"
	if cut {
		state = "down"
	}
	st.network("ip", "-n", "switch", "link", "set", serverName, state)
}

// slow lets so many bits a second through, with 400 ms of others in the way; "": all there are.
func (st *site) slow(rate string) {
	st.T.Helper()
	if rate == "" {
		st.network("ip", "netns", "exec", serverName, "tc", "qdisc", "del", "dev", "eth0", "root")
		return
	}
	st.network("ip", "netns", "exec", serverName, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "32kb", "latency", "400ms")
}

// crossed is how many bytes have left the centre.
func (st *site) crossed() int64 {
	st.T.Helper()
	var links []struct {
		Stats64 struct{ Tx struct{ Bytes int64 } }
	}
	if err := json.Unmarshal([]byte(st.network("ip", "-n", serverName, "-s", "-j", "link", "show", "eth0")), &links); err != nil || len(links) != 1 {
		st.T.Fatalf("%v: %+v", err, links)
	}
	return links[0].Stats64.Tx.Bytes
}

// metric is a number of the edge.
func (st *site) metric(name string) int64 {
	st.T.Helper()
	req, err := http.NewRequestWithContext(st.T.Context(), http.MethodGet, "http://edge/metrics", nil)
	if err != nil {
		st.T.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+st.watcher())
	resp, err := st.Edge().HTTP().Do(req)
	if err != nil {
		st.T.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+"{"); ok {
			n, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				st.T.Fatal(err)
			}
			return int64(n)
		}
	}
	st.T.Fatalf("the edge has no %s: %s", name, resp.Status)
	return 0
}

// watcher is a token for /metrics of the edge.
func (st *site) watcher() string {
	st.T.Helper()
	const file = "/srv/narwharf/watcher"
	return st.Edge().Sh(`[ -e "$1" ] || narwharf token new --name watcher --scope metrics > "$1"; cat "$1"`, file)
}

// get asks the edge for a path as a host does; with a token or without one.
func (st *site) get(path, token string) (status int, size int64) {
	st.T.Helper()
	req, err := http.NewRequestWithContext(st.T.Context(), http.MethodGet, "http://edge/"+path, nil)
	if err != nil {
		st.T.Fatal(err)
	}
	if token != "" {
		req.SetBasicAuth("host", token)
	}
	resp, err := st.Host("h1").HTTP().Do(req)
	if err != nil {
		st.T.Fatal(err)
	}
	defer resp.Body.Close()
	size, err = io.Copy(io.Discard, resp.Body)
	if err != nil {
		st.T.Fatal(err)
	}
	return resp.StatusCode, size
}

// whole checks that the edge serves all that a system needs.
func (st *site) whole(system string) {
	st.T.Helper()
	for _, path := range st.CI().Closure(system) {
		hash := strings.TrimPrefix(path, "/nix/store/")[:32]
		if status, _ := st.get(hash+".narinfo", st.edgeToken); status != 200 {
			st.T.Errorf("%s: %d", path, status)
		}
	}
}

// runs waits until all hosts run a release.
func (st *site) runs(seq int64, system string, limit time.Duration) {
	st.T.Helper()
	Eventually(st.T, limit, "all hosts confirmed", func() error {
		reported := st.reported()
		for _, h := range st.Hosts() {
			if r := reported[h.Name()]; r.Status.State != "ok" || r.Status.Seq != seq || r.Status.Current != system {
				return fmt.Errorf("%s: %+v\n%s", h.Name(), r, tail(h.Journal("narwharf.service"), 8))
			}
		}
		return nil
	})
}

// kept waits until the edge lacks nothing of a release.
func (st *site) kept(seq int64, limit time.Duration) {
	st.T.Helper()
	Eventually(st.T, limit, "the edge has the release", func() error {
		if r, m := st.metric("narwharf_mirror_release"), st.metric("narwharf_mirror_missing_paths"); r != seq || m != 0 {
			return fmt.Errorf("release %d, %d paths are missing", r, m)
		}
		return nil
	})
}

const received = "narwharf_upstream_received_bytes_total"

// once promotes a system with so many KiB that do not compress, waits for all, and returns how many bytes of it
// crossed the line, and how many were NARs.
func (st *site) once(version string, kib int, limit time.Duration, meanwhile func()) (system string, crossed, nars int64) {
	st.T.Helper()
	system = st.system(version, func(s *System) { s.Bulk = kib })
	line, edge := st.crossed(), st.metric(received)
	seq := st.send(system)
	if meanwhile != nil {
		meanwhile()
	}
	st.runs(seq, system, limit)
	st.kept(seq, limit)
	return system, st.crossed() - line, st.metric(received) - edge
}

// TestSite has hosts at a site. The line carries each byte once, is cut for minutes in mid-download, and is slow.
func TestSite(t *testing.T) {
	t.Parallel()
	hosts := 2
	if testing.Short() {
		hosts = 1
	}
	st := newSite(t, hosts)
	story := func(name string, tell func(s *Story, st *site)) {
		st.story(t, name, func(s *Story, fw *follower) {
			lent := *st
			lent.follower = fw
			tell(s, &lent)
		})
	}
	before := ""
	story("19: a site: each byte crosses the line once", func(s *Story, st *site) {
		const kib = 8 << 10
		begin := time.Now()
		first, line, nars := st.once("one", kib, 5*time.Minute, nil)
		s.Took("promote to confirmed", time.Since(begin))
		s.Note("%d KiB crossed the line for %d hosts, %d KiB of them NARs", line>>10, hosts, nars>>10)
		// The first release brings the whole system, and hosts had all but three paths of it.
		if _, line, nars = st.once("two", kib, 5*time.Minute, nil); nars < kib<<10 || nars > (kib<<10)*102/100 || line > (kib<<10)*110/100 {
			s.Errorf("of %d bytes %d crossed the line, %d were NARs", kib<<10, line, nars)
		}
		st.whole(first)
		if status, _ := st.get(strings.TrimPrefix(first, "/nix/store/")[:32]+".narinfo", ""); status != http.StatusUnauthorized {
			s.Errorf("the edge is private, and answers %d", status)
		}
		st.Edge().WriteFile("/srv/narwharf/operator", st.Edge().Token("operator", "operate")+"\n", 0o600)
		if why := st.Edge().Narwharf("why", first, "--server", "http://edge", "--token-file", "/srv/narwharf/operator"); !strings.Contains(why.Stdout, "mirror:web:1") {
			s.Errorf("%v", why)
		}
		before = first
	})
	if testing.Short() || t.Failed() {
		return
	}
	story("19: a site: the line is cut for minutes in mid-download", func(s *Story, st *site) {
		const kib, away = 32 << 10, 150 * time.Second
		st.slow("16mbit")
		defer st.slow("")
		var back time.Time
		_, line, nars := st.once("three", kib, 10*time.Minute, func() {
			from := st.crossed()
			Eventually(s, 5*time.Minute, "half of it is here", func() error {
				if n := st.crossed() - from; n < kib<<9 {
					return fmt.Errorf("%d bytes", n)
				}
				return nil
			})
			st.cut(true)
			end := time.Now().Add(away)
			for time.Now().Before(end) { // the edge serves what it has, all the time
				st.whole(before)
				if status, _ := st.get("readyz", st.edgeToken); status != 200 {
					s.Errorf("/readyz is %d", status)
				}
				time.Sleep(5 * time.Second)
			}
			for _, h := range st.Hosts() {
				if got := h.State(); got.Hello != "two" {
					s.Errorf("%s: %+v", h.Name(), got)
				}
			}
			st.cut(false)
			back = time.Now()
		})
		s.Took("from the line's return to all hosts confirmed", time.Since(back))
		s.Note("%d KiB crossed the line, %d KiB of %d KiB as NARs", line>>10, nars>>10, kib)
		if line > (kib<<10)*115/100 {
			s.Errorf("of %d bytes %d crossed the line", kib<<10, line)
		}
	})
	story("19: a site: a slow line, kept within a rate", func(s *Story, st *site) {
		const kib, rate = 4 << 10, 256 << 10
		st.Edge().WriteFile(configFile, strings.Replace(st.edgeConfig, "#rate", `rate = "256KiB"`, 1), 0o644)
		st.Edge().Restart()
		st.slow("4mbit")
		defer st.slow("")
		begin := time.Now()
		_, line, _ := st.once("four", kib, 5*time.Minute, nil)
		took := time.Since(begin)
		s.Took("promote to confirmed", took)
		s.Note("%d KiB at %d KiB/s", line>>10, rate>>10)
		if least := time.Second * (kib << 10) / rate; took < least-time.Second {
			s.Errorf("%d KiB came in %v, which the rate makes %v at least", kib, took, least)
		}
		if line > (kib<<10)*115/100 {
			s.Errorf("of %d bytes %d crossed the line", kib<<10, line)
		}
	})
}
