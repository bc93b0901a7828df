package fleet

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// rollingout is a follower whose channel has roll-outs.
type rollingout struct{ *follower }

// asks asks the API as CI, and expects a status.
func (fw *rollingout) asks(method, path, body string, want int) string {
	fw.T.Helper()
	out := fw.CI().Sh(`curl -sS -w '\n%{http_code}' -X "$1" -H "Authorization: Bearer $(cat /root/token)" -H 'Content-Type: application/json' ${3:+-d "$3"} "http://cache/api/v1/$2"`, method, path, body)
	text, code, _ := lastLine(out)
	if code != fmt.Sprint(want) {
		fw.T.Fatalf("%s %s: %s %s, want %d", method, path, code, text, want)
	}
	return text
}

func lastLine(out string) (text, last string, ok bool) {
	i := strings.LastIndexByte(strings.TrimSpace(out), '\n')
	if i < 0 {
		return "", strings.TrimSpace(out), false
	}
	return out[:i], strings.TrimSpace(out[i+1:]), true
}

type rolloutReport struct {
	Seq   int64  `json:"seq"`
	State string `json:"state"`
	Why   string `json:"why"`
	Bad   int    `json:"bad"`
	Back  int    `json:"back"`
}

func (fw *rollingout) show() (r rolloutReport) {
	fw.T.Helper()
	if err := json.Unmarshal([]byte(fw.asks(http.MethodGet, "rollouts/web", "", 200)), &r); err != nil {
		fw.T.Fatal(err)
	}
	return r
}

// comes waits for a roll-out to be in a state, and checks meanwhile that only some hosts activate a
// system.
func (fw *rollingout) comes(seq int64, state, system string, only ...string) {
	fw.T.Helper()
	Eventually(fw.T, 5*time.Minute, fmt.Sprintf("release %d is %s", seq, state), func() error {
		fw.none(system, only...)
		if r := fw.show(); r.Seq != seq || r.State != state {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	fw.none(system, only...)
}

// none checks that no host but some runs a system.
func (fw *rollingout) none(system string, only ...string) {
	fw.T.Helper()
	for name, r := range fw.reported() {
		if r.Status.Current == system && !slices.Contains(only, name) {
			fw.T.Errorf("%s runs %s: %+v", name, system, r)
		}
	}
}

func (fw *rollingout) policy(text string) {
	fw.T.Helper()
	fw.CI().Sh(`printf %s "$1" | narwharf channel policy web --file -`, text)
}

func (fw *rollingout) verb(verb string) {
	fw.T.Helper()
	fw.asks(http.MethodPost, "rollouts/web/"+verb, fmt.Sprintf(`{"seq":%d,"reason":"a test"}`, fw.show().Seq), 200)
}

// runs are the hosts that run a system, by what they report.
func (fw *rollingout) runs(system string) (names []string) {
	for name, r := range fw.reported() {
		if r.Status.Current == system {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// TestRollouts is story 9 with five hosts: a canary, then 40 %, then all; what breaks reaches nobody
// else and goes back; a server that is killed in the middle; pauses, and a newer release meanwhile.
func TestRollouts(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := newFollower(t, 5, forgetful("h2"))
	a := fw.system("a")
	fw.promote(0, a)
	yes := `{"labels":{"canary":"true"}}`
	story := func(name string, tell func(s *Story, fw *rollingout)) {
		fw.story(t, name, func(s *Story, fw *follower) { tell(s, &rollingout{fw}) })
	}
	const waves = `{"rollout":{"waves":[{"name":"canary","select":"canary=true","max":1,"bake":%q},{"max":"40%%","bake":"3s"},{"max":"100%%"}]%s}}`
	all := []string{"h1", "h2", "h3", "h4", "h5"}
	story("9: canary, 40 %, all; the server is killed in the middle", func(s *Story, fw *rollingout) {
		fw.asks(http.MethodPatch, "hosts/h1", yes, 200)
		fw.policy(fmt.Sprintf(waves, "8s", ""))
		b := fw.system("b")
		begin := time.Now()
		seq := fw.send(b)
		Eventually(s, 3*time.Minute, "the canary runs it", func() error {
			if got := fw.runs(b); !slices.Equal(got, []string{"h1"}) {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
		s.Took("promote to canary", time.Since(begin))
		fw.Server().Kill()
		fw.Server().Start()
		fw.comes(seq, "completed", b, all...)
		s.Took("promote to completed", time.Since(begin))
		fw.run(b, "b", "ok")
		a = b
	})
	story("9: a bad canary reaches nobody else", func(s *Story, fw *rollingout) {
		fw.policy(fmt.Sprintf(waves, "3s", `,"prefetch":false`))
		bad := fw.system("bad", misbehave(Unhealthy))
		begin := time.Now()
		seq := fw.send(bad)
		fw.comes(seq, "halted", bad, "h1")
		s.Took("promote to halted", time.Since(begin))
		fw.run(a, "b", "ok", "h2", "h3", "h4", "h5")
		fw.run(a, "b", "reverted", "h1")
		for name, r := range fw.reported() {
			if name != "h1" && r.Status.Seq == seq {
				s.Errorf("%s was shown it: %+v", name, r)
			}
		}
		out := fw.narwharf("promote", "web", bad)
		if out.Code == 0 || !strings.Contains(out.Stderr, "quarantine") {
			s.Errorf("it is promoted again: %v", out)
		}
	})
	story("a bad second wave: all go back", func(s *Story, fw *rollingout) {
		fw.policy(fmt.Sprintf(waves, "3s", `,"on_failure":"revert_all"`))
		c, bad := fw.system("c"), fw.system("c-bad", misbehave(Unhealthy))
		begin := time.Now()
		seq := fw.send("h1="+c, "h2="+bad, "h3="+bad, "h4="+bad, "h5="+bad)
		Eventually(s, 3*time.Minute, "the canary runs it", func() error {
			if got := fw.runs(c); !slices.Contains(got, "h1") {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
		fw.comes(seq, "halted", bad, all...)
		Eventually(s, 3*time.Minute, "nobody runs it", func() error {
			if got := append(fw.runs(c), fw.runs(bad)...); len(got) > 0 {
				return fmt.Errorf("%v run it, %+v", got, fw.show())
			}
			return nil
		})
		s.Took("promote to all back", time.Since(begin))
		fw.run(a, "b", "reverted", "h1")
	})
	story("pause, resume, and a newer release in the middle", func(s *Story, fw *rollingout) {
		fw.policy(fmt.Sprintf(waves, "0s", ""))
		d := fw.system("d")
		seq := fw.send(d)
		fw.verb("pause")
		fw.comes(seq, "paused", d, "h1", "h2", "h3", "h4", "h5")
		e := fw.system("e")
		next := fw.send(e)
		fw.comes(next, "completed", e, all...)
		fw.run(e, "e", "ok")
	})
}
