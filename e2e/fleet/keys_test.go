package fleet

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestStolenKey: a channel's keys over time, on hosts: one is off through a rotation and follows
// it, a release is signed by a command, a key is stolen and revoked while a server in hostile hands
// hides that from one of them.
func TestStolenKey(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	var evil *hijacker
	public, secret, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := func(key []byte) string { return "recovery-1:" + base64.StdEncoding.EncodeToString(key) }
	fw := follow(t, 2, func(toml string) string {
		toml = strings.Replace(toml, "http://cache", fmt.Sprintf("http://ci:%d", hijackerPort), 1)
		return strings.Replace(toml, "min_free", fmt.Sprintf("recovery_keys = [%q]\nmin_free", text(public)), 1)
	}, func(f *Fleet, _ string, _ *HostOptions) {
		if evil == nil {
			evil = newHijacker(f)
		}
	})
	fw.CI().WriteFile("/root/keys/recovery.sec", text(secret)+"\n", 0o600)
	fw.CI().WriteFile("/root/keys/recovery.pub", text(public)+"\n", 0o644)
	ci := func(s *Story, args ...string) Output {
		s.Helper()
		out := fw.CI().Narwharf(args...)
		if out.Code != 0 {
			s.Fatalf("%v: %v", args, out)
		}
		return out
	}
	deploy, bob := fw.CI().SecretKey("deploy-1"), fw.CI().SecretKey("bob-1")
	const wait = "--wait-timeout=90s"
	var good string

	fw.story(t, "a rotation, with h2 off", func(s *Story, fw *follower) {
		fw.promote(0, fw.system("1"))
		fw.Host("h2").PowerOff()
		fw.CI().NewKey("bob-1")
		ci(s, "channel", "keys", "web", "add", "/root/keys/bob-1.pub", "--key", deploy)
		ci(s, "promote", "web", fw.system("2"), "--key", deploy, "--key", bob, "--wait", "--offline-after=5s", wait)
		ci(s, "channel", "refresh", "web", "--key", bob, "--trusted-key", "/root/keys/deploy-1.pub")
		ci(s, "channel", "keys", "web", "retire", "deploy-1", "--key", bob, "--trusted-key", "/root/keys/deploy-1.pub")
		good = fw.system("3")
		ci(s, "promote", "web", good, "--key", bob, "--wait", "--offline-after=5s", wait)
		fw.run(good, "3", "ok", "h1")
		if out := fw.narwharf("promote", "web", good, "--if-seq", "4"); out.Code == 0 {
			s.Errorf("the retired key promotes: %v", out)
		}
		begin := time.Now()
		fw.Host("h2").Boot()
		Eventually(s, 2*time.Minute, "h2 follows both statements", func() error {
			if r := fw.reported()["h2"]; r.Status.State != "ok" || r.Status.Current != good {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		s.Took("boot to ok, by way of two statements", time.Since(begin))
	})
	fw.story(t, "a release signed by a command", func(s *Story, fw *follower) {
		// What stands for a key service: it has the key, and CI its public half.
		fw.CI().WriteFile("/root/kms", `#!/bin/sh
set -e
{ printf '\060\056\002\001\000\060\005\006\003\053\145\160\004\042\004\040'; sed 's/.*://' /root/keys/bob-1.sec | base64 -d | head -c 32; } > /tmp/kms.der
cat > /tmp/kms.in
openssl pkeyutl -sign -rawin -keyform DER -inkey /tmp/kms.der -in /tmp/kms.in
`, 0o755)
		good = fw.system("4")
		ci(s, "promote", "web", good, "--key", "/root/keys/bob-1.pub", "--sign-cmd", "/root/kms", "--wait", wait)
		fw.run(good, "4", "ok")
	})
	fw.story(t, "a stolen key, whose revocation is hidden from h2", func(s *Story, fw *follower) {
		fw.CI().NewKey("carol-1")
		carol := fw.CI().SecretKey("carol-1")
		ci(s, "channel", "keys", "web", "add", "/root/keys/carol-1.pub", "--key", bob)
		fw.CI().Token(fw.Server().Token("root", "admin"))
		ci(s, "channel", "keys", "web", "recovery", "/root/keys/recovery.pub")

		// The thief promotes. The hijacker keeps what hosts would be shown, and shows them what was.
		var mu sync.Mutex
		stolen, before := map[string]map[string]any{}, map[string]map[string]any{}
		seq := fw.seq()
		evil.turn(nil, func(desired map[string]any, host string) {
			mu.Lock()
			defer mu.Unlock()
			if desired["seq"] == float64(seq) {
				before[host] = maps.Clone(desired)
				return
			}
			if desired["grant"] != nil {
				stolen[host] = maps.Clone(desired)
			}
			if old := before[host]; old != nil {
				clear(desired)
				maps.Copy(desired, old)
			}
		})
		Eventually(s, time.Minute, "both have asked", func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(before) < 2 {
				return fmt.Errorf("%d have", len(before))
			}
			return nil
		})
		theirs := fw.system("evil")
		ci(s, "promote", "web", theirs, "--key", bob)
		Eventually(s, time.Minute, "the hijacker has both answers", func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(stolen) < 2 {
				return fmt.Errorf("%d", len(stolen))
			}
			return nil
		})
		// As docs/runbook.md says.
		ci(s, "channel", "keys", "web", "revoke", "bob-1", "--reason", "laptop stolen", "--out", "/root/revocation.json")
		ci(s, "sign", "--key", "/root/keys/recovery.sec", "/root/revocation.json")
		ci(s, "channel", "keys", "web", "send", "/root/revocation.json")
		if out := fw.CI().Narwharf("promote", "web", theirs, "--key", bob); out.Code == 0 {
			s.Errorf("the stolen key promotes: %v", out)
		}
		// h1 hears of it, h2 does not; then both are shown the thief's release.
		evil.turn(nil, func(desired map[string]any, host string) {
			mu.Lock()
			defer mu.Unlock()
			revocations := desired["revocations"]
			clear(desired)
			maps.Copy(desired, stolen[host])
			if host == "h1" {
				desired["revocations"] = revocations
			}
		})
		Eventually(s, 2*time.Minute, "h1 rejects it, h2 cannot know better", func() error {
			is := fw.reported()
			if r := is["h1"]; r.Status.State != "rejected" || r.Status.Current != good {
				return fmt.Errorf("%+v", r)
			}
			if r := is["h2"]; r.Status.Current != theirs {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		// The server is clean again, and the promoters go on.
		evil.turn(nil, nil)
		good = fw.system("5")
		ci(s, "promote", "web", good, "--key", carol, "--if-seq", fmt.Sprint(fw.seq()), "--wait", wait)
		fw.run(good, "5", "ok")
		// What h2 has heard of by now it keeps.
		evil.turn(nil, func(desired map[string]any, host string) {
			mu.Lock()
			defer mu.Unlock()
			if host == "h2" {
				clear(desired)
				maps.Copy(desired, stolen[host])
			}
		})
		Eventually(s, time.Minute, "h2 refuses what it once took", func() error {
			if r := fw.reported()["h2"]; r.Status.Current != good || r.Status.Error == "" {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		evil.turn(nil, nil)
	})
}
