package fleet

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

// What stories of roll-outs share: an operator's commands, and who did what when by the journals of
// the agents.

// tells tells a story with a follower whose channels have roll-outs.
func (fw *follower) tells(t *testing.T, name string, tell func(s *Story, fw *rollingout)) {
	t.Helper()
	fw.story(t, name, func(s *Story, fw *follower) { tell(s, &rollingout{fw}) })
}

// says is an operator's `narwharf rollout VERB web --reason …`.
func (fw *rollingout) says(verb string) {
	fw.T.Helper()
	fw.CI().Must("narwharf", "rollout", verb, "web", "--reason", "a test")
}

// shown is what `narwharf rollout show` knows of a channel's roll-out, or that of a seq (web@3).
func (fw *rollingout) shown(which string) (r struct {
	Seq                   int64
	State, Why            string
	Well, Left, Bad, Back int
	Offline               int
	Now                   bool
	Waits                 map[string]int
	Waves                 []struct{ State, Approved string }
}) {
	fw.T.Helper()
	out := fw.CI().Narwharf("rollout", "show", which, "--json")
	if err := json.Unmarshal([]byte(out.Stdout), &r); err != nil {
		fw.T.Fatalf("%v: %v", err, out)
	}
	return r
}

// wait waits until so many hosts wait for something.
func (fw *rollingout) wait(kind string, hosts int) {
	fw.T.Helper()
	Eventually(fw.T, 3*time.Minute, fmt.Sprintf("%d hosts wait: %s", hosts, kind), func() error {
		if r := fw.shown("web"); r.Waits[kind] != hosts {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

// over waits until a channel's roll-out is in a state in which it stays, which it has to be.
func (fw *rollingout) over(channel string, seq int64, state string) {
	fw.T.Helper()
	over := []string{"completed", "halted", "aborted", "superseded"}
	r := fw.shown(channel)
	Eventually(fw.T, 10*time.Minute, fmt.Sprintf("release %d of %s is over", seq, channel), func() error {
		if r = fw.shown(channel); r.Seq < seq || r.Seq == seq && (!slices.Contains(over, r.State) || state == "aborted" && r.State == "halted") {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if r.Seq != seq || r.State != state {
		fw.T.Fatalf("release %d of %s is %+v, want %s\n%+v", seq, channel, r, state, fw.reported())
	}
}

// A sight is a host that came to a state of a release.
type sight struct {
	host, state string
	seq         int64
	at          time.Time
}

// busy are the states in which a host is unavailable, or may become so.
var busy = []string{"draining", "activating", "probation", "committing", "reverting", "armed"}

// sights is what hosts went through, in the order in which it was seen. What is shorter than some
// milliseconds is not.
type sights []sight

// sights looks at the journals of all agents all the time, until it is called off.
func (fw *follower) sights() (off func() sights) {
	var seen sights
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		last := map[string]sight{}
		for {
			for _, name := range fw.names {
				j, err := fw.Host(name).agentJournal()
				if is := (sight{name, j.State, j.Seq, time.Time{}}); err == nil && last[name] != is {
					last[name] = is
					is.at = time.Now()
					seen = append(seen, is)
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	off = sync.OnceValue(func() sights {
		close(stop)
		wg.Wait()
		return seen
	})
	fw.T.Cleanup(func() { off() })
	return off
}

// first is when a host first came to one of some states of a release; zero: never.
func (all sights) first(host string, seq int64, states ...string) time.Time {
	for _, s := range all {
		if s.host == host && s.seq == seq && slices.Contains(states, s.state) {
			return s.at
		}
	}
	return time.Time{}
}

// began is when a host began to change to a release; zero: never.
func (all sights) began(host string, seq int64) time.Time { return all.first(host, seq, busy...) }

// took are the hosts that began to change to a release.
func (all sights) took(seq int64) (hosts []string) {
	for _, s := range all {
		if s.seq == seq && slices.Contains(busy, s.state) && !slices.Contains(hosts, s.host) {
			hosts = append(hosts, s.host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// most is how many of some hosts were busy at a time.
func (all sights) most(hosts ...string) (most int) {
	now := map[string]bool{}
	for _, s := range all {
		if slices.Contains(hosts, s.host) {
			delete(now, s.host)
			if slices.Contains(busy, s.state) {
				now[s.host] = true
			}
		}
		most = max(most, len(now))
	}
	return most
}

// inOrder checks that each of some hosts began with a release only after all of the ones before it
// were well with it.
func (all sights) inOrder(t testing.TB, seq int64, groups ...[]string) {
	t.Helper()
	for i, group := range groups[1:] {
		for _, host := range group {
			for _, before := range groups[i] {
				began, well := all.began(host, seq), all.first(before, seq, "ok")
				if began.IsZero() || well.IsZero() || began.Before(well) {
					t.Errorf("%s began with release %d %s, and %s was well %s", host, seq, began.Format("15:04:05.000"), before, well.Format("15:04:05.000"))
				}
			}
		}
	}
}

// mixed is a version of hosts whose systems differ.
type mixed struct {
	version string
	of      map[string]string // system by host
}

// systems builds systems by version, all at once, and uploads them.
func (fw *follower) systems(each map[string]func(*System)) map[string]string {
	fw.T.Helper()
	names := slices.Sorted(maps.Keys(each))
	systems := make([]System, len(names))
	for i, name := range names {
		systems[i] = System{Version: name, Agent: fw.agent, AgentConfig: fw.config}
		each[name](&systems[i])
	}
	paths := fw.CI().BuildSystems(systems...)
	fw.CI().Push(paths...)
	of := make(map[string]string)
	for i, name := range names {
		of[name] = paths[i]
	}
	return of
}

// asItIs changes nothing of a system.
func asItIs(*System) {}

// mixedSystems is systems for some hosts, of which each says what is special about its systems.
func (fw *follower) mixedSystems(each map[string]func(*System), special func(host string, s *System), hosts ...string) map[string]mixed {
	fw.T.Helper()
	all := make(map[string]func(*System))
	for version, change := range each {
		for _, host := range hosts {
			all[version+" "+host] = func(s *System) {
				s.Version = version
				special(host, s)
				change(s)
			}
		}
	}
	paths, of := fw.systems(all), make(map[string]mixed)
	for version := range each {
		of[version] = mixed{version, make(map[string]string)}
		for _, host := range hosts {
			of[version].of[host] = paths[version+" "+host]
		}
	}
	return of
}

// args are what promote is told of it, of all of its hosts if none are named.
func (m mixed) args(hosts ...string) (args []string) {
	for host, path := range m.of {
		if len(hosts) == 0 || slices.Contains(hosts, host) {
			args = append(args, host+"="+path)
		}
	}
	slices.Sort(args)
	return args
}

// mixed checks that hosts run their systems of a version, and that the server knows; of none it is
// all of its hosts.
func (fw *rollingout) mixed(m mixed, state string, hosts ...string) {
	fw.T.Helper()
	if len(hosts) == 0 {
		hosts = slices.Collect(maps.Keys(m.of))
	}
	for _, host := range hosts {
		fw.run(m.of[host], m.version, state, host)
	}
}

// takes waits until a host runs its system of a version well.
func (fw *rollingout) takes(host string, m mixed) {
	fw.T.Helper()
	Eventually(fw.T, 3*time.Minute, host+" runs "+m.version, func() error {
		if r := fw.reported()[host]; r.Status.State != "ok" || r.Status.Current != m.of[host] {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}
