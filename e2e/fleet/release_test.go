package fleet

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRelease is what promoters do with more than one host and more than one
// promoter, and what a cache that holds other bytes than were signed can do.
func TestRelease(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := newFollower(t, 3, forgetful("h2"))
	story := func(name string, tell func(s *Story, fw *follower)) { fw.story(t, name, tell) }
	var a, b string
	story("three targets, of which one changes", func(s *Story, fw *follower) {
		a, b = fw.system("a"), fw.system("b")
		fw.promote(0, "h1="+a, "h2="+a, "h3="+a)
		fw.run(a, "a", "ok")
		pid := fw.Host("h1").State().AgentPID
		begin := time.Now()
		fw.promote(0, "h1="+a, "h2="+b, "h3="+a)
		s.Took("promote to last confirmed", time.Since(begin))
		fw.run(b, "b", "ok", "h2")
		fw.run(a, "a", "ok", "h1", "h3")
		if now := fw.Host("h1").State().AgentPID; now != pid {
			s.Errorf("the agent of h1, which had nothing to do, is another process: %s, was %s", now, pid)
		}
	})
	story("--set changes one target of the last release", func(s *Story, fw *follower) {
		fw.promote(0, "--set", "h3="+b)
		fw.run(b, "b", "ok", "h2", "h3")
		fw.run(a, "a", "ok", "h1")
	})
	story("a host without an entry keeps what it runs", func(s *Story, fw *follower) {
		fw.promote(0, "h1="+b, "h2="+b)
		fw.run(b, "b", "ok", "h1", "h2")
		Eventually(s, 30*time.Second, "h3 says so", func() error {
			if r := fw.reported()["h3"]; r.Status.State != "not_in_release" || r.Status.Current != b {
				return fmt.Errorf("h3 is %+v", r)
			}
			return nil
		})
	})
	story("of two promotes that saw the same seq one wins", func(s *Story, fw *follower) {
		seq := fw.reported()["h1"].Status.Seq
		systems := []string{fw.system("race-1"), fw.system("race-2")}
		outs := make([]Output, 2)
		var wg sync.WaitGroup
		for i, path := range systems {
			wg.Add(1)
			go func() {
				defer wg.Done()
				outs[i] = fw.narwharf("promote", "web", path, "--if-seq", fmt.Sprint(seq))
			}()
		}
		wg.Wait()
		codes := fmt.Sprint(outs[0].Code, outs[1].Code)
		if codes != "0 4" && codes != "4 0" {
			s.Fatalf("they end with %s, want 0 and 4\n%v\n%v", codes, outs[0], outs[1])
		}
		won, version := systems[0], "race-1"
		if outs[1].Code == 0 {
			won, version = systems[1], "race-2"
		}
		Eventually(s, time.Minute, "every host runs the winner", func() error {
			for name, r := range fw.reported() {
				if !r.Converged {
					return fmt.Errorf("%s is %+v", name, r)
				}
			}
			return nil
		})
		fw.run(won, version, "ok")
		a = won
	})
	story("12: other bytes than were signed never run; a clean server heals", func(s *Story, fw *follower) {
		path := fw.system("tampered")
		var changed string
		for _, p := range fw.CI().Closure(path) {
			if strings.Contains(p, "-hello-") {
				changed = p
			}
		}
		hash := strings.TrimPrefix(changed, "/nix/store/")[:32]
		file := fw.Server().Sh(`sed -n 's/^URL: //p' "/srv/narwharf/cache/$1.narinfo"`, hash)
		fw.Server().Sh(`cd /srv/narwharf/cache && cp "$1" /srv/good && printf 'X' | dd of="$1" bs=1 seek=60 conv=notrunc status=none`, strings.TrimSpace(file))
		fw.promote(5, path, "--wait-timeout", "20s")
		for _, h := range fw.Hosts() {
			if st := h.State(); st.Current != a || st.Profile != a {
				s.Errorf("%s runs what was tampered with: %+v", h.Name(), st)
			}
			if r := fw.reported()[h.Name()]; r.Status.State != "stage_failed" && r.Status.State != "staging" {
				s.Errorf("%s says %+v, want stage_failed", h.Name(), r)
			}
		}
		fw.Server().Sh(`cp /srv/good "/srv/narwharf/cache/$1"`, strings.TrimSpace(file))
		begin := time.Now()
		Eventually(s, 3*time.Minute, "every host converges", func() error {
			for name, r := range fw.reported() {
				if !r.Converged {
					return fmt.Errorf("%s is %+v", name, r)
				}
			}
			return nil
		})
		s.Took("clean server to last confirmed", time.Since(begin))
		fw.run(path, "tampered", "ok")
	})
	story("a CI that built other bytes is refused, and has two ways out", func(s *Story, fw *follower) {
		ci := fw.CI()
		for _, way := range []string{"adopt", "rebuild"} {
			path := fw.system("other-bytes-" + way)
			hello := ""
			for _, p := range ci.Closure(path) {
				if strings.Contains(p, "-hello-") {
					hello = p
				}
			}
			// What a build that is not reproducible leaves in another CI's store.
			ci.Sh(otherBytes, hello)
			out := fw.narwharf("promote", "web", path)
			if out.Code != 2 || !strings.Contains(out.Stderr, hello) || !strings.Contains(out.Stderr, "--adopt") || !strings.Contains(out.Stderr, "always-allow-substitutes") {
				s.Errorf("%v", out)
			}
			if way == "adopt" {
				fw.promote(0, path, "--adopt", "--content-key", fw.Key("ci-1"))
			} else {
				ci.Sh(`nix-store --delete --ignore-liveness $(nix-store --query --referrers-closure "$1") >/dev/null
nix-store --realise "$2" --option substituters http://cache --option trusted-public-keys "$3" --option narinfo-cache-negative-ttl 0`, hello, path, fw.Key("ci-1"))
				fw.promote(0, path)
			}
			fw.run(path, "other-bytes-"+way, "ok")
		}
	})
}

// otherBytes changes a file of the store path $1 and registers the path anew.
const otherBytes = `chmod -R u+w "$1"
echo "# built at another hour" >> "$1/bin/hello"
chmod -R a-w "$1"
{
	echo "$1"
	nix-store --dump "$1" | sha256sum | cut -d ' ' -f 1
	nix-store --dump "$1" | wc -c
	nix-store --query --deriver "$1"
	nix-store --query --references "$1" | wc -l
	nix-store --query --references "$1"
} > /tmp/validity
nix-store --register-validity --reregister --hash-given < /tmp/validity`
