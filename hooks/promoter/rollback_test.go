package promoter_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/promoter"
	"narwharf/signing"
)

// say reports how a host ended a release, or is on its way.
func (s *site) say(host string, seq int64, state api.State) {
	s.t.Helper()
	s.counter++
	st := &api.Status{Agent: "1", StartID: 1, Counter: s.counter, Channel: "web", Target: host, BootID: "b", State: state, Seq: seq, HighestSeq: seq, Attempt: fmt.Sprint(host, seq),
		Wanted: s.path, Current: s.path, Booted: s.path, Profile: s.path}
	if state == api.Reverted {
		st.Current = "/nix/store/before"
	}
	if err := s.options.Client.PutStatus(s.t.Context(), host, st, false); err != nil {
		s.t.Fatal(err)
	}
}

// A rollback goes to the last release that a host ended ok and none badly. Each step of
// a story is a path that is promoted (A), what a host said (h1=ok, of the last release;
// h1@1=ok of another), a rollback with where it goes (<1) or the words of its refusal
// (!no earlier).
func TestRollbackGoesToTheLastGoodRelease(t *testing.T) {
	for name, story := range map[string]string{
		"one before":                     "A h1=ok B h1=ok <1",
		"that one failed everywhere":     "A h1=ok B h1=reverted C h1=reverted <1",
		"failed, rejected":               "A h1=ok B h1=failed C h1=rejected D h1=ok <1",
		"one host is enough":             "A h1=ok h2=staging B h1=reverted <1",
		"a canary went back":             "A h1=ok h2=ok B h1=reverted h2=ok C h1=ok h2=ok <1",
		"it went well at a second try":   "A h1=ok B h1=reverted h1=staging h1=ok C h1=failed <2",
		"it drifted later":               "A h1=ok B h1=ok h1=drifted C h1=reverted <2",
		"it went badly later":            "A h1=ok B h1=ok h1=reverted C h1=ok <1",
		"no ping-pong":                   "A h1=ok B h1=ok <1 h1=ok !no earlier release",
		"no ping-pong, one further":      "A h1=ok B h1=ok C h1=ok <2 h1=ok <1",
		"rollback, then a fix, then bad": "A h1=ok B h1=ok <1 h1=ok C h1=reverted <3",
		"what has the same systems":      "A h1=ok B h1=ok B h1=ok <1",
		"nobody said anything":           "A B C <2",
		"nobody said anything, again":    "A B <1 !no earlier release",
		"all are bad":                    "A h1=reverted B h1=reverted C h1=reverted !no release of web is known to be good",
		"nothing is known of the rest":   "A B h1=reverted C h1=failed !seq 2 (1 reverted), seq 1 (no host has said",
		"the only one":                   "A h1=ok !no earlier release",
		"still under way":                "A h1=ok B h1=probation C h1=reverted <1",
		"armed is not ok":                "A h1=ok B h1=armed C h1=reverted <1",
		"of another channel's name":      "A h1=ok B <1",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			last := int64(0)
			for step := range strings.SplitSeq(story, " ") {
				host, state, said := strings.Cut(step, "=")
				switch {
				case said:
					s.say(host, last, api.State(state))
				case step[0] == '<':
					p := s.promoter()
					r, err := p.Rollback(t.Context(), 0)
					if err != nil {
						t.Fatal(step, err)
					}
					if !strings.Contains(s.note.String(), fmt.Sprintf("going back to seq %s of web, made ", step[1:])) {
						t.Fatalf("%s: %s", step, s.note.String())
					}
					s.note.Reset()
					a, err := p.Send(t.Context(), r)
					if err != nil {
						t.Fatal(err)
					}
					last = a.Seq
				case step[0] == '!':
					_, words, _ := strings.Cut(story, "!")
					_, err := s.promoter().Rollback(t.Context(), 0)
					wantError(t, err, "", words)
					return
				default:
					last = s.mustPromote(map[string]string{"*": s.put(step).In("/nix/store")})
				}
			}
		})
	}
}

func TestRollbackByHand(t *testing.T) {
	s := newSite(t)
	s.mustPromote(map[string]string{"*": s.put("A").In("/nix/store")})
	s.say("h1", 1, api.Reverted)
	s.mustPromote(map[string]string{"*": s.put("B").In("/nix/store")})
	if _, err := s.promoter().Rollback(t.Context(), 1); err != nil || !strings.Contains(s.note.String(), "as --to says; 1 reverted") {
		t.Error(err, s.note.String())
	}
	_, err := s.promoter().Rollback(t.Context(), 2)
	wantError(t, err, "", "to go back to it changes nothing")
	_, err = s.promoter().Rollback(t.Context(), 7)
	wantError(t, err, api.NotFound, "has no release 7")
}

// The origin is settled by the first release and changed by an admin alone.
func TestOrigin(t *testing.T) {
	s := newSite(t)
	paths := map[string]string{"*": s.path}
	s.options.Origin = ""
	_, err := s.promote(paths)
	wantError(t, err, "", "127.0.0.1 is no name for that: give it one that will be the server's, as --origin cache.example.org/web, or say --origin 127.0.0.1/web")
	s.options.Client = must(api.NewClient(api.ClientOptions{Servers: []string{strings.Replace(s.URL, "127.0.0.1", "localhost", 1)}}))
	_, err = s.promote(paths)
	wantError(t, err, "", "localhost is no name for that")
	s.options.Origin = "cache.example.org/web"
	s.mustPromote(paths)
	s.options.Origin = ""
	s.mustPromote(map[string]string{"*": s.put("other").In("/nix/store")}) // that of the last one

	s.options.Origin, s.options.KeepOrigin = "other.example.org/web", true
	_, err = s.promote(paths)
	wantError(t, err, "", "hosts know the channel as cache.example.org/web, not as other.example.org/web: correct --origin")
	s.options.KeepOrigin = false
	_, err = s.promoter().Change(t.Context(), map[string]string{"a": s.path})
	wantError(t, err, "", "promote whole releases with --origin other.example.org/web")
	s.note.Reset()
	s.mustPromote(paths) // anybody is admin here
	if !strings.Contains(s.note.String(), "changes from cache.example.org/web to other.example.org/web") {
		t.Error(s.note.String())
	}
	c, err := s.options.Client.Channel(t.Context(), "web")
	if err != nil || c.Origin != "other.example.org/web" {
		t.Error(c, err)
	}
	if err := s.options.Client.DeleteChannel(t.Context(), "web", c.Seq); err != nil {
		t.Fatal(err)
	}
	s.options.Origin = "" // that of before, which hosts have
	s.mustPromote(paths)
	if c, err = s.options.Client.Channel(t.Context(), "web"); err != nil || c.Origin != "other.example.org/web" {
		t.Error(c, err)
	}
}

// Whoever has a key that may not sign hears how it may, and that works.
func TestWrongKey(t *testing.T) {
	s := newSite(t)
	paths := map[string]string{"*": s.path}
	s.mustPromote(paths)
	alice, bob := s.options.Keys[0], must(signing.GenerateKey("bob-1"))
	s.options.Keys = []signing.Signer{bob}
	_, err := s.promote(paths)
	wantError(t, err, "", "your key bob-1 is none of the channel's, which are "+alice.Public().String())
	wantError(t, err, "", "--key THEIRS.sec --channel-key '"+bob.Public().String()+"'")
	one := int64(1)
	s.options.IfSeq = &one // as it said before
	_, err = s.promote(paths)
	wantError(t, err, api.BadSignature, "your key bob-1 is none of the channel's")
	s.options.IfSeq = nil

	s.options.Keys, s.options.ChannelKeys = []signing.Signer{alice}, []signing.PublicKey{bob.Public()}
	s.mustPromote(map[string]string{"*": s.put("other").In("/nix/store")})
	s.options.Keys, s.options.ChannelKeys = []signing.Signer{bob}, nil
	_, err = s.promote(paths)
	wantError(t, err, "", "it was signed by alice-1: if you trust that promoter, name the key with --trusted-key (the channel's are ")
	s.options.Trusted = []signing.PublicKey{alice.Public(), bob.Public()}
	s.mustPromote(paths)
}

// Promote before upload: what is missing, and the line that uploads it.
func TestPromoteBeforeUpload(t *testing.T) {
	s := newSite(t)
	paths := map[string]string{"a": s.put("one", s.put("gone")).In("/nix/store"), "b": s.put("two").In("/nix/store")}
	p := s.promoter()
	r, err := p.Build(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	gone := s.put("gone")
	s.mu.Lock()
	delete(s.infos, gone.Hash())
	s.mu.Unlock()
	_, err = p.Send(t.Context(), r)
	wantError(t, err, api.ClosureIncomplete, "not everything is in the cache yet:\n  target a lacks 1 path:\n    "+string(gone)+"\nUpload it, then promote again (--netrc-file FILE after copy, where that needs a token):\n    nix copy --refresh --to '"+s.URL+"' "+paths["a"])
}

// What --wait says of who does not run the release, and what it waits for.
func TestWaitSaysWhoRunsIt(t *testing.T) {
	s := newSite(t)
	wait := func(require int, timeout time.Duration, want promoter.Outcome, summary string) {
		t.Helper()
		s.options.RequireHosts = require
		r, err := s.promoter().Wait(t.Context(), 1, timeout, 0)
		if err != nil || r.Outcome != want || r.Summary != summary {
			t.Errorf("%+v, %v; want %s: %s", r, err, want, summary)
		}
	}
	s.mustPromote(map[string]string{"*": s.path})
	wait(0, time.Minute, promoter.Completed, "no host follows web")
	wait(1, 100*time.Millisecond, promoter.TimedOut, "no host follows web, and 1 are required")
	s.say("a", 1, api.OK)
	wait(0, time.Minute, promoter.Completed, "all 1 hosts run it")
	s.say("b", 1, api.Armed)
	wait(0, time.Minute, promoter.Completed, "1 of 2 hosts run it; armed, and run it from their next reboot on: b")
	wait(2, 100*time.Millisecond, promoter.TimedOut, "1 of 2 hosts run it, and 2 are required; armed, and run it from their next reboot on: b")
	s.say("c", 0, api.Idle)
	if _, err := s.options.Client.PatchHost(t.Context(), "c", map[string]any{"hold": api.Hold{Reason: "disk"}}); err != nil {
		t.Fatal(err)
	}
	wait(1, time.Minute, promoter.Completed, "1 of 3 hosts run it; armed, and run it from their next reboot on: b; held or paused: c")
	s.say("d", 1, api.Failed)
	wait(9, time.Minute, promoter.Reverted, "1 of 4 hosts run it, and 9 are required; went back or failed: d; armed, and run it from their next reboot on: b; held or paused: c")
}
