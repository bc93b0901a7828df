package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// Commands of the previous build with this server, and the other way round. One host speaks as the
// previous agent does, one as this one.
func TestPreviousCommands(t *testing.T) {
	t.Parallel()
	builds := map[string]string{"this": narwharfBin(t), "previous": PreviousBin(t)}
	for _, c := range []struct{ server, commands string }{{"this", "previous"}, {"previous", "this"}} {
		t.Run(c.commands+" commands, "+c.server+" server", func(t *testing.T) {
			t.Parallel()
			s := newServer(t, scratch(t), nil)
			s.Use(builds[c.server])
			s.Start()
			u := NewUploader(t, s.URL(), s.Token("ci", "push"))
			paths := []*Path{NewPath("zero", RandomNAR(700, 100)), NewPath("one", RandomNAR(701, 100)), NewPath("two", RandomNAR(702, 100)), NewPath("bad", RandomNAR(703, 100))}
			u.Upload(paths...)
			zero, one, two, bad := storePath(paths[0]), storePath(paths[1]), storePath(paths[2]), storePath(paths[3])

			p := newPromoter(s, builds[c.commands], s.Token("op", "push", "promote:*", "operate"), NewKey("deploy-1"))
			p.promote(0, "promoted web to seq 1", zero)
			p.promote(0, "0 changed", zero) // the same again
			p.promote(0, "", one, "--dry-run")

			hosts := s.Token("hosts", "follow:web", "pull")
			h1, h2 := newFollower(s, hosts, "h1", zero), newFollower(s, hosts, "h2", zero).today()
			h1.states[bad] = "reverted"
			stop := make(chan struct{})
			wg := follow(stop, h1, h2)
			watch := startWatch(p)
			p.promote(0, `"outcome": "completed"`, one, "--wait", "--json", "--wait-timeout", "60s")
			p.promote(0, "completed: seq 4 of web", "h1="+zero, "h2="+two, "--wait", "--wait-timeout", "60s")
			p.promote(0, "completed: seq 5 of web", "--set", "h1="+two, "--wait", "--wait-timeout", "60s")
			p.promote(3, "h1", "h1="+bad, "h2="+two, "--wait", "--wait-timeout", "60s")
			p.must(0, "seq 7 of web", "rollback", "web", "--key", "deploy.sec", "--to", "3", "--wait", "--wait-timeout", "60s")
			close(stop)
			wg.Wait()
			if text := watch(); !strings.Contains(text, "h1") || !strings.Contains(text, "h2") {
				t.Errorf("watch tells of no host:\n%s", text)
			}

			for _, h := range []string{"h1", "h2"} {
				p.must(0, h, "hosts", "web")
			}
			var list []struct {
				Host      string
				Converged bool
				Status    struct{ State, Current string }
			}
			if err := json.Unmarshal([]byte(p.must(0, "", "hosts", "web", "--json").Stdout), &list); err != nil || len(list) != 2 {
				t.Fatalf("hosts --json: %v, %d hosts", err, len(list))
			}
			for _, h := range list {
				if !h.Converged || h.Status.State != "ok" || h.Status.Current != one {
					t.Errorf("%+v", h)
				}
			}
			p.must(0, "web", "status")
			p.must(0, "web", "status", "web", "--json")
			p.must(0, one, "channel", "show", "web")
			p.must(0, "rollback", "channel", "history", "web")
			p.must(0, "web", "channel", "list")
			p.must(0, "", "promote", "duo", one, "--key", "deploy.sec", "--from-cache", "--content-key", s.Key.Public(), "--kind", "path", "--origin", "127.0.0.1/duo", "--out", "r.json")
			p.must(0, "promoted duo to seq 1", "promote", "duo", "--envelope", "r.json", "--if-seq", "0")
			p.must(0, "duo", "channel", "delete", "duo")

			p.must(0, "held", "host", "hold", "h1", "--reason", "x")
			p.must(0, "a=b", "host", "label", "h1", "a=b")
			p.must(0, "retry", "host", "retry", "h2")
			s.writeFile(filepath.Join(p.files, "policy.json"), `{"reboot_slots": 1}`, 0o644)
			p.must(0, "", "channel", "policy", "web", "--file", "policy.json")
			p.must(0, `"reboot_slots": 1`, "channel", "policy", "web")
		})
	}
}

// A data_dir of the previous build is this one's, with everything in it; and what this one wrote is
// the previous one's again, as far as docs/operating.md says.
func TestPreviousDataDir(t *testing.T) {
	t.Parallel()
	this, previous := narwharfBin(t), PreviousBin(t)
	s := newServer(t, scratch(t), func(c *Config) { c.Anonymous = []string{} })
	restart := func(bin string) {
		t.Helper()
		s.Stop()
		s.Use(bin)
		s.Fsck()
		s.Start()
	}
	s.Use(previous)
	s.Start()
	push, hosts, gone := s.Token("ci", "push"), s.Token("hosts", "follow:web", "pull"), s.Token("gone", "push")
	if out := s.CLI("token", "revoke", "gone"); out.Code != 0 {
		t.Fatal(out)
	}
	u := NewUploader(t, s.URL(), push)
	below := NewPath("below", RandomNAR(710, 5000))
	one, two, three := NewPath("one", RandomNAR(711, 100), below), NewPath("two", RandomNAR(712, 100_000), below), NewPath("three", RandomNAR(713, 100))
	u.Upload(below, one, two, three)
	const log = "/log/azblcsnx0isp6dgr73qhxvamfq20580i-x.drv"
	if r := u.Do("PUT", log, "text/plain", []byte("built\n")); !r.OK() {
		t.Fatal(r)
	}
	key := NewKey("deploy-1")
	operator := s.Token("op", "push", "promote:*", "operate", "admin")
	old, now := newPromoter(s, previous, operator, key), newPromoter(s, this, operator, key)
	h1 := newFollower(s, hosts, "h1", storePath(one))
	old.promote(0, "promoted web to seq 1", storePath(one))
	old.promote(0, "promoted web to seq 2", storePath(two))
	h1.report("staging", 2, storePath(two))
	h1.current = storePath(two)
	h1.report("ok", 2, storePath(two))
	now.must(0, "rack=2", "host", "label", "h1", "rack=2") // the previous server could, its commands could not

	may := func(token string) bool {
		t.Helper()
		r := NewUploader(t, s.URL(), token).Get("/" + below.Hash() + ".narinfo")
		if r.Status != 200 && r.Status != 401 {
			t.Errorf("%v", r)
		}
		return r.Status == 200
	}
	// Everything that has files is there.
	stored := func(seq int, path *Path) {
		t.Helper()
		for _, p := range []*Path{below, one, two, three} {
			if doc := u.Fetch(p); doc.SignedBy(s.Key) != 1 {
				t.Errorf("%s is not signed", p.Base)
			}
		}
		if r := u.Get(log); r.Body != "built\n" {
			t.Errorf("%v", r)
		}
		if may(gone) {
			t.Error("a revoked token works")
		}
		for _, p := range []*promoter{old, now} {
			out := p.must(0, storePath(path), "channel", "show", "web")
			if !strings.Contains(out.Stdout, fmt.Sprintf("seq        %d\n", seq)) {
				t.Errorf("%v", out)
			}
			p.must(0, storePath(one), "channel", "history", "web")
		}
	}
	// And so is the rest of the database, asked by the commands of both.
	whole := func(seq int, path *Path) {
		t.Helper()
		stored(seq, path)
		for _, p := range []*promoter{old, now} {
			p.must(0, "by op", "channel", "show", "web")
			p.must(0, "h1", "hosts", "web")
			p.must(0, `"rack": "2"`, "hosts", "--json")
		}
	}
	whole(2, two)
	restart(this)
	whole(2, two)
	now.promote(0, "promoted web to seq 3", storePath(three))
	now.must(0, "promoted web to seq 4", "rollback", "web", "--to", "last-good", "--key", "deploy.sec")
	// What only this build writes.
	s.writeFile(filepath.Join(now.files, "policy.json"), `{"reboot_slots": 1}`, 0o644)
	now.must(0, "", "channel", "policy", "web", "--file", "policy.json")
	h2 := newFollower(s, hosts, "h2", storePath(one)).today()
	h2.report("ok", 1, storePath(one))
	now.must(0, "retry", "host", "retry", "h2")
	late := s.Token("late", "push")

	// Back to the previous build: it serves all it knows of.
	restart(previous)
	whole(4, two)
	now.must(0, "h2", "hosts", "web")
	if !may(late) {
		t.Error("a token of this build does not work with the previous one")
	}
	h2.report("ok", 4, storePath(one))
	if out := s.CLI("token", "revoke", "late"); out.Code != 0 {
		t.Error(out)
	}
	old.promote(0, "promoted web to seq 5", storePath(one))

	// And forth again: what the other did holds, and nothing of before is lost.
	restart(this)
	whole(5, one)
	now.must(0, `"reboot_slots": 1`, "channel", "policy", "web")
	if may(late) {
		t.Error("what the previous build revoked works again")
	}

	// A join token of this build is one of the previous, too.
	if out := s.CLI("token", "new", "--join", "web", "--name", "shelf"); out.Code != 0 {
		t.Fatal(out)
	}
	restart(previous)
	if out := s.CLI("token", "list"); out.Code != 0 || !strings.Contains(out.Stdout, "shelf") {
		t.Error(out)
	}
	s.Stop()
	// It does not take a configuration for what it is not.
	s.writeFile(filepath.Join(s.Dir, "newer.toml"), s.config.TOML()+"\n[of_a_later_build]\nx = 1\n", 0o644)
	if out := run(t, program{argv: []string{previous, "serve", "--config", filepath.Join(s.Dir, "newer.toml")}, dir: s.Dir}); out.Code != 2 || !strings.Contains(out.Stderr, "of_a_later_build") || !strings.Contains(out.Stderr, "line") {
		t.Errorf("the previous build with a newer configuration: %v", out)
	}
	// Without the database it goes on from the files.
	s.Use(previous)
	remove(t, filepath.Join(s.Data, "narwharf.db"))
	if out := s.CLI("rebuild"); out.Code != 0 {
		t.Fatal(out)
	}
	s.Start()
	again := newPromoter(s, previous, s.Token("again", "push", "promote:*", "operate"), key)
	again.promote(0, "promoted web to seq 6", storePath(two))
	s.Stop()
	s.Use(this)
	if out := s.CLI("rebuild"); out.Code != 0 { // or the policy, which has a file that the previous one did not read, is not seen
		t.Fatal(out)
	}
	s.Start()
	stored(6, two)
	now.must(0, `"reboot_slots": 1`, "channel", "policy", "web")
	h2.current = storePath(two)
	h2.report("ok", 6, storePath(two)) // with its token of before
}
