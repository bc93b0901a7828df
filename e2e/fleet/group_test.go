package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"narwharf/signing/access/oidc/oidctest"
)

const (
	groupSize    = 200
	firstMachine = "asg-named-first" // as its cloud calls h1
	groupRules   = `
[[access.oidc]]
name = "cloud"
issuer = "https://ci:9446/cloud"
private_addresses = true
[[access.oidc.rules]]
name = "named"
claims = { sub = "named", google = { compute_engine = { project_id = "acme" } } }
scopes = ["follow:web"]
host_claim = "google.compute_engine.instance_name"
hosts = "asg-*"
ttl = "2h"
forget_after = "20s"
[[access.oidc.rules]]
name = "drawn"
claims = { sub = "drawn", google = { compute_engine = { project_id = "acme" } } }
scopes = ["follow:web"]
hosts = "asg-*"
ttl = "2h"
forget_after = "20s"

[metrics]
hosts = true
`
)

// newGroup is a fleet with one host of the group, which has a systemd and has switched to the release by itself, and an
// image of it.
func newGroup(t *testing.T) *group {
	t.Helper()
	g := &group{follower: new(follower)}
	g.Fleet = New(t, Options{
		Hosts: 1, Off: true,
		Config: func(toml string) string { return "public_url = \"http://cache\"\n" + toml + groupRules },
		System: func(f *Fleet) System {
			if g.issuer == nil {
				l, err := f.CI().Listen(9446)
				if err != nil {
					t.Fatal(err)
				}
				g.issuer = oidctest.New(t, oidctest.Options{Listener: l, Name: "ci", Path: "/cloud"})
				f.Server().Sh(`cat >> /etc/ssl/certs/ca-certificates.crt <<< "$1"`, string(g.issuer.Certificate()))
				f.CI().Token(f.Server().Token("ci-promotes", "push", "promote:*", "operate", "metrics"))
				g.agent = f.CI().Agent()
				g.config = strings.Replace(agentConfig(f.CI().NewKey("deploy-1"), f.Key(ciKey)), "token_file = \"/var/lib/narwharf/token\"\n", "", 1) +
					"\n[identity]\nkind = \"oidc\"\nfrom = \"gcp\"\n"
			}
			return System{Version: "0", Agent: g.agent, AgentConfig: g.config}
		},
	})
	if err := g.metadata(g.hosts["h1"].machine, groupSize+1, "first"); err != nil {
		t.Fatal(err)
	}
	return g
}

// story runs a story with the group lent to it.
func (g *group) story(t *testing.T, name string, tell func(s *Story, g *group)) {
	t.Helper()
	g.follower.story(t, name, func(s *Story, fw *follower) {
		lent := *g
		lent.follower = fw
		tell(s, &lent)
		g.image, g.machines = lent.image, lent.machines
	})
}

// listed are the hosts that the server knows, by name.
func (g *group) listed() (map[string]groupHost, error) {
	out, err := g.CI().try(time.Minute, "", "narwharf", "hosts", "web", "--json")
	if err != nil || out.Code != 0 {
		return nil, fmt.Errorf("%v: %w", out, err)
	}
	var list []groupHost
	if err := json.Unmarshal([]byte(out.Stdout), &list); err != nil {
		return nil, fmt.Errorf("%v: %w", out, err)
	}
	all := map[string]groupHost{}
	for _, h := range list {
		all[h.Host] = h
	}
	return all, nil
}

// stays are the buckets that remember what was: the audit log, and how the last collection ended.
var stays = []string{"hooks/event", "cache/retention"}

// groupHost is what the server says of a machine.
type groupHost struct {
	Host   string
	Online bool
	Status struct {
		State, Current string
		Seq            int64
		BootID         string `json:"boot_id"`
		Instance       string
	}
}

// rows are the entries of the server's state, and how often each word of a pattern is in them. The server is stopped:
// nothing but the file tells what is there.
func (g *group) rows(words *regexp.Regexp) (count map[string]int, found map[string][]string) {
	g.T.Helper()
	g.Server().Stop()
	defer g.Server().Start()
	name := filepath.Join(g.T.TempDir(), "state")
	if err := os.WriteFile(name, []byte(g.Server().ReadFile("/srv/narwharf/narwharf.db")), 0o600); err != nil {
		g.T.Fatal(err)
	}
	db, err := bbolt.Open(name, 0o600, nil)
	if err != nil {
		g.T.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	count, found = map[string]int{}, map[string][]string{}
	var walk func(path string, b *bbolt.Bucket) error
	walk = func(path string, b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return walk(path+"/"+string(k), b.Bucket(k))
			}
			count[path]++
			if slices.Contains(stays, path) {
				return nil
			}
			for _, word := range words.FindAllString(string(k)+"\n"+string(v), -1) {
				found[word] = append(found[word], fmt.Sprintf("%s %q", path, k))
			}
			return nil
		})
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error { return walk(string(name), b) })
	})
	if err != nil {
		g.T.Fatal(err)
	}
	return count, found
}

// text is what the server answers a GET with CI's token.
func (g *group) text(path string) string {
	g.T.Helper()
	out := g.CI().Sh(`curl -sS -H "Authorization: Bearer $(cat /root/token)" -H 'Accept: text/html' "$1"`, g.Server().URL()+path)
	return out
}

// TestGroup is story 20: an autoscaled group of 200 machines comes up from one image, each a container with root, processes,
// network and identity of its own and a real agent. Each joins by what its cloud says of it, with no secret in the image, and is
// in service. They go as machines do. Each is forgotten, and nothing is left of it.
func TestGroup(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	g := newGroup(t)
	g.BootAll()
	first := g.system("1")
	g.story(t, "20: the first machine of a group joins by its cloud's word, and switches; an image is made of it", func(s *Story, g *group) {
		h := g.Host("h1")
		g.promote(0, first)
		Eventually(s, time.Minute, "h1 runs the release", func() error {
			list, err := g.listed()
			if is := list[firstMachine].Status; err == nil && (is.State != "ok" || is.Current != first || h.State().Profile != first) {
				err = fmt.Errorf("%+v\n%s", list, tail(h.Journal("narwharf.service"), 10))
			}
			return err
		})
		h.PowerOff()
		g.makeImage("h1")
		if found := g.CI().Exec("grep", "-rlE", "nwt_[0-9a-z]{10}_", g.image); found.Code == 0 {
			s.Errorf("a token is in the image: %v", found)
		}
		h.Boot()
	})
	before, _ := g.rows(regexp.MustCompile("^$"))
	names := map[string]bool{}
	g.story(t, "20: 200 machines come up from the image, join, and are in service", func(s *Story, g *group) {
		if err := g.attach(groupSize); err != nil {
			s.Fatal(err)
		}
		begin := time.Now()
		for _, i := range g.machines {
			if err := g.on(i); err != nil {
				s.Fatal(err)
			}
		}
		g.inService(s, first, names)
		s.Took("all in service (promised for one: 60 s)", time.Since(begin))
	})
	if t.Failed() || len(names) != groupSize {
		t.Fatalf("%d machines of %d", len(names), groupSize)
	}
	g.story(t, "20: they go: switched off, stopped, cut off; each is forgotten, nothing is left", func(s *Story, g *group) {
		for n, i := range g.machines {
			if n%4 == 0 {
				i.cut(s)
			}
			i.off(s)
		}
		begin := time.Now()
		Eventually(s, 5*time.Minute, "all but h1 are forgotten", func() error {
			list, err := g.listed()
			if err == nil && (len(list) != 1 || !list[firstMachine].Online) {
				err = fmt.Errorf("%d hosts are listed", len(list))
			}
			return err
		})
		s.Took("last of them to forgotten (forget_after 20 s, a poll of 50 s that nobody ended)", time.Since(begin))
		g.nothingLeft(s, before, names)
	})
}

// inService waits until every machine of the group runs the release, and notes their names.
func (g *group) inService(s *Story, system string, names map[string]bool) {
	s.Helper()
	Eventually(s, 10*time.Minute, "200 machines are in service", func() error {
		list, err := g.listed()
		if err != nil {
			return err
		}
		delete(list, firstMachine)
		clear(names)
		ids, boots := map[string]bool{}, map[string]bool{}
		for name, h := range list {
			if h.Online && h.Status.State == "ok" && h.Status.Current == system && strings.HasPrefix(name, "asg-") {
				names[name], ids[h.Status.Instance], boots[h.Status.BootID] = true, true, true
			}
		}
		if len(names) != groupSize || len(list) != groupSize {
			return fmt.Errorf("%d of %d listed hosts are, of one machine: %s", len(names), len(list), tail(read(s, g.machines[0].log()), 15))
		}
		if len(boots) != groupSize {
			return errors.New("machines have a boot in common")
		}
		return nil
	})
	named := 0
	for name := range names {
		if strings.HasPrefix(name, "asg-named-") {
			named++
		}
	}
	if named != groupSize/2 {
		s.Errorf("%d machines have the name that their cloud gave them, %d wanted", named, groupSize/2)
	}
}

// nothingLeft looks for machines that are forgotten wherever they could be left.
func (g *group) nothingLeft(s *Story, before map[string]int, names map[string]bool) {
	s.Helper()
	for _, place := range []string{"/metrics", "/api/v1/hosts?channel=web", "/ui/", "/ui/channels/web", "/ui/channels/web/hosts"} {
		text := g.text(place)
		for name := range names {
			if strings.Contains(text, name) {
				s.Errorf("%s still has %s", place, name)
				break
			}
		}
	}
	if list := g.Server().Must("narwharf", "token", "list", "--config", configFile); strings.Count(list, "asg-") > 3 {
		s.Errorf("tokens are left:\n%s", list)
	}
	patterns := slices.Sorted(maps.Keys(names))
	after, found := g.rows(regexp.MustCompile(strings.Join(patterns, "|")))
	shown := 0
	for name, where := range found {
		if shown++; shown <= 5 {
			s.Errorf("%s is left in the state: %v", name, where)
		}
	}
	for bucket, n := range after {
		if n > before[bucket] && !slices.Contains(stays, bucket) && !strings.HasPrefix(bucket, "series/") { // those of the page's plots go by time
			s.Errorf("%s has %d rows, %d before the group came", bucket, n, before[bucket])
		}
	}
	if files := g.Server().Exec("grep", "-rlE", strings.Join(patterns[:20], "|"), "/srv/narwharf", "--include=*.json", "--include=*.toml"); files.Code == 0 {
		s.Errorf("files name them: %v", files)
	}
}
