package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// rolling is two servers that share a database, behind nginx, with hosts and commands of the previous build and of this.
type rolling struct {
	*replicas
	builds map[string]string
	cli    map[string]*promoter
	token  string
	up     *Uploader
	paths  []*Path
	seq    int64
}

func newRolling(t *testing.T) *rolling {
	t.Helper()
	r := &rolling{builds: map[string]string{"previous": PreviousBin(t), "this": narwharfBin(t)}, cli: make(map[string]*promoter)}
	r.replicas = newReplicasOf(t, 2, r.builds["previous"], nil) // as a cluster that is upgraded begins
	r.token = r.all[0].Token("op", "push", "promote:*", "operate", "admin")
	r.up = NewUploader(t, r.url, r.token)
	deploy := NewKey("deploy-1")
	for name, bin := range r.builds {
		r.cli[name] = newPromoter(r.all[0], bin, r.token, deploy)
	}
	return r
}

// path uploads another path through nginx, and so through either server.
func (r *rolling) path() *Path {
	n := len(r.paths)
	p := NewPath(fmt.Sprintf("v%d", n), RandomNAR(uint64(900+n), 4000), r.paths...)
	r.up.Upload(p)
	r.paths = append(r.paths, p)
	return p
}

// becomes has a server run another build from now on.
func (r *rolling) becomes(s *Server, build string) {
	r.t.Helper()
	s.Stop()
	s.Use(r.builds[build])
	s.Start()
}

// release promotes by commands of a build, calls meanwhile when the first wave bakes, and waits until the roll-out
// has completed.
func (r *rolling) release(build string, meanwhile func()) {
	r.t.Helper()
	next := storePath(r.path())
	r.seq++
	done := make(chan Output, 1)
	go func() {
		p := r.cli[build]
		done <- p.run("promote", "web", next, "--server", r.url, "--key", "deploy.sec", "--from-cache", "--content-key", r.all[0].Key.Public(), "--kind", "path",
			"--origin", "127.0.0.1/web", "--wait", "--wait-timeout", "3m")
	}()
	soon(r.t, time.Minute, func() string {
		list := r.listed()
		if h := list["h1"]; h.Status.Seq != r.seq || h.Status.State != "ok" {
			return fmt.Sprintf("the canary has not got release %d: %+v", r.seq, list)
		}
		return ""
	})
	if meanwhile != nil {
		meanwhile()
	}
	if out := <-done; out.Code != 0 || !strings.Contains(out.Stdout+out.Stderr, "completed") {
		r.t.Fatalf("release %d by the %s commands: %v", r.seq, build, out)
	}
	for name, h := range r.listed() {
		if h.Status.Current != next || h.Status.Seq != r.seq || !h.Converged {
			r.t.Errorf("%s: %+v", name, h)
		}
	}
}

type listedHost struct {
	Host      string
	Converged bool
	Status    struct {
		State, Current string
		Seq            int64
	}
}

// listed is what whichever server answers says of the hosts.
func (r *rolling) listed() map[string]listedHost {
	r.t.Helper()
	all := make(map[string]listedHost)
	reply, err := r.up.Try(http.MethodGet, "/api/v1/hosts?channel=web", "", nil)
	if err != nil || reply.Status != 200 {
		return all
	}
	var list struct{ Hosts []listedHost }
	if err := json.Unmarshal([]byte(reply.Body), &list); err != nil {
		r.t.Fatalf("%v: %s", err, reply.Body)
	}
	for _, h := range list.Hosts {
		all[h.Host] = h
	}
	return all
}

// versions checks that commands of both builds list both servers with their versions.
func (r *rolling) versions(want int) {
	r.t.Helper()
	for name, p := range r.cli {
		soon(r.t, 40*time.Second, func() string {
			out := p.run("replicas", "--json", "--server", r.url)
			var list []struct {
				Version string
				Silent  bool
			}
			if err := json.Unmarshal([]byte(out.Stdout), &list); err != nil {
				return fmt.Sprintf("%s commands: %v %v", name, err, out)
			}
			var versions []string
			for _, s := range list {
				if !s.Silent {
					versions = append(versions, s.Version)
				}
			}
			slices.Sort(versions)
			if len(versions) != 2 || len(slices.Compact(versions)) != want {
				return fmt.Sprintf("%s commands list %+v, want two servers of %d versions", name, list, want)
			}
			return ""
		})
	}
}

// read checks that a server reads what all have written.
func (r *rolling) read(s *Server) {
	r.t.Helper()
	u := NewUploader(r.t, s.URL(), r.token)
	for _, p := range r.paths {
		u.Fetch(p)
	}
	for _, path := range []string{"/api/v1/channels/web", "/api/v1/channels/web/policy", "/api/v1/hosts/h1", "/api/v1/hosts/h2", "/api/v1/events?since=0", "/api/v1/replicas", "/api/v1/alarms", "/api/v1/pins", "/api/v1/gc"} {
		if complaint := wantStatus(u, path, 200); complaint != "" {
			r.t.Errorf("%s: %s", path, complaint)
		}
	}
	var history struct{ History []struct{ Seq int64 } }
	reply := u.Get("/api/v1/channels/web/history")
	if err := json.Unmarshal([]byte(reply.Body), &history); err != nil || int64(len(history.History)) != r.seq {
		r.t.Errorf("%v: %d releases of %d: %s", err, len(history.History), r.seq, reply.Body)
	}
}

// TestRollingUpgrade brings two servers from the previous build to this one and back, one after the other, each while a
// roll-out runs, with commands and hosts of both.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	r := newRolling(t)
	a, b := r.all[0], r.all[1]
	first := storePath(r.path())
	r.seq = 1
	r.cli["previous"].must(0, "promoted web to seq 1", "promote", "web", first, "--server", r.url, "--key", "deploy.sec", "--from-cache", "--content-key", a.Key.Public(), "--kind", "path", "--origin", "127.0.0.1/web")
	token := a.Token("hosts", "follow:web", "pull")
	h1, h2, h3 := newFollower(a, token, "h1", first), newFollower(a, token, "h2", first).today(), newFollower(a, token, "h3", first)
	for _, h := range []*follower{h1, h2, h3} {
		h.up = NewUploader(t, r.url, token)
		h.report("ok", 1, first)
	}
	r.cli["previous"].must(0, "canary=true", "host", "label", "h1", "canary=true", "--server", r.url)
	a.setPolicy(r.token, "web", `{"rollout":{"prefetch":false,"waves":[{"name":"canary","select":"canary=true","bake":"4s"},{}]}}`)
	stop := make(chan struct{})
	wg := follow(stop, h1, h2, h3)
	defer func() { close(stop); wg.Wait() }()

	r.release("previous", nil)
	for _, step := range []struct {
		server   *Server
		to       string
		commands string
		versions int
	}{
		{a, "this", "previous", 2}, {b, "this", "this", 1}, // up
		{a, "previous", "this", 2}, {b, "previous", "previous", 1}, // and back
	} {
		r.release(step.commands, func() { r.becomes(step.server, step.to) })
		r.versions(step.versions)
		r.read(a)
		r.read(b)
		r.release(step.commands, nil) // and one that begins with both as they are now
		if t.Failed() {
			return
		}
	}
}
