//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"narwharf/narinfo"
)

// first measures what a real Nix feels when it is the first to copy a closure from a server, or to
// it. Each pull goes into a new store on a tmpfs, with nothing remembered.
type first struct {
	p     plan
	st    *nixStore
	dir   string
	nginx *nginx
	laid  string // folders zstd and raw, each a whole cache of files
	n     int    // of samples so far, for names
}

// A place is where clients are and what is in memory when they come.
type place struct {
	name string
	cold bool
	line *line // nil: the same machine
}

func (pl place) host() string {
	if pl.line != nil {
		return lineHost
	}
	return loopback
}

// A puller is a server that a closure is pulled from.
type puller struct {
	name  string
	start func(pl place, dir string) (*server, string, error) // with the URL of the cache
}

func firstRows(p plan, st *nixStore, dir string, n *nginx) ([]row, error) {
	defer remove(dir)
	f := &first{p: p, st: st, dir: dir, nginx: n, laid: filepath.Join(dir, "laid")}
	unmount, err := f.prepare()
	if err != nil {
		return nil, err
	}
	defer unmount()
	places := []place{{name: "page cache warm"}}
	if !p.quick {
		places = append(places, place{name: "page cache cold", cold: true})
	}
	l, err := openLine()
	if err == nil {
		defer l.close()
		places = append(places, place{name: "over 1 Gbit/s", line: l})
	} else if !errors.Is(err, errNoLine) {
		return nil, err
	} else {
		progress("%v", err)
	}
	var out []row
	for _, pl := range places {
		rows, err := f.pulls(pl)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
		if pl.cold || !n.dav {
			continue
		}
		if rows, err = f.uploads(pl); err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

// prepare makes the folders: clients' stores in memory, and the caches that nginx serves.
func (f *first) prepare() (unmount func(), err error) {
	clients := filepath.Join(f.dir, "clients")
	if err := os.MkdirAll(clients, 0o755); err != nil {
		return nil, err
	}
	unmount = func() {}
	if err := unix.Mount("narwharf-bench", clients, "tmpfs", 0, "mode=755"); err == nil {
		unmount = func() { _ = unix.Unmount(clients, unix.MNT_DETACH) }
	} else {
		progress("clients' stores are on the disk: %v", err)
	}
	return unmount, f.layOut()
}

// layOut has our server tell both caches of files, plain before packed.
func (f *first) layOut() error {
	s, err := startNarwharf(f.p.binary, filepath.Join(f.dir, "source"), f.st.root)
	if err != nil {
		return err
	}
	defer remove(filepath.Join(f.dir, "source"))
	defer s.stop()
	conn, err := dial(s.addr, "")
	if err != nil {
		return err
	}
	defer conn.close()
	for _, form := range []struct{ name, prefix string }{{"raw", "/lan"}, {"zstd", ""}} {
		to := filepath.Join(f.laid, form.name)
		if err := os.MkdirAll(filepath.Join(to, "nar"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, "nix-cache-info"), []byte("StoreDir: "+storeDir+"\nWantMassQuery: 1\n"), 0o644); err != nil {
			return err
		}
		for _, i := range f.st.paths {
			if err := layOutPath(conn, form.prefix, to, i); err != nil {
				return err
			}
		}
	}
	return syncDisk(f.dir)
}

func layOutPath(conn *client, prefix, to string, want *narinfo.Info) error {
	name := narinfoPath(want.Path)
	text, err := conn.get(prefix + name)
	if err != nil {
		return err
	}
	i, err := narinfo.Parse(text)
	if err != nil {
		return fmt.Errorf("GET %s%s: %w", prefix, name, err)
	}
	if (i.Compression == "none") != (prefix != "") {
		return fmt.Errorf("GET %s%s: compression %s", prefix, name, i.Compression)
	}
	sum, err := conn.save(prefix+"/"+i.URL, filepath.Join(to, i.URL), i.Compression != "none")
	if err == nil && (sum.plain != want.NarHash || sum.plainSize != want.NarSize) {
		err = fmt.Errorf("GET %s/%s: it is not the NAR of %s", prefix, i.URL, want.Path)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, name), text, 0o644)
}

// ours, files and runs are the servers.
func (f *first) ours(prefix string) puller {
	return puller{"Narwharf" + prefix, func(pl place, dir string) (*server, string, error) {
		s, err := startNarwharfOn(pl.host(), f.p.binary, dir, f.st.root)
		if err != nil {
			return nil, "", err
		}
		return s, "http://" + s.addr + prefix, nil
	}}
}

func (f *first) files(form string) puller {
	return puller{"nginx, " + form, func(pl place, dir string) (*server, string, error) {
		n := *f.nginx
		n.host = pl.host()
		s, err := n.start(dir)
		if err != nil {
			return nil, "", err
		}
		return s.server, "http://" + s.addr + "/" + form, os.Symlink(filepath.Join(f.laid, form), filepath.Join(s.www, form))
	}}
}

func (f *first) runs(p peer) puller {
	return puller{p.name, func(pl place, _ string) (*server, string, error) {
		_, port, _ := strings.Cut(p.addr, ":") // parsePeer saw to it
		if pl.line != nil {
			p.addr = lineHost + ":" + port
		}
		s, err := whoListens(p)
		return s, "http://" + p.addr + p.prefix, err
	}}
}

// pulls measures first and second pulls in one place.
func (f *first) pulls(pl place) ([]row, error) {
	servers := []puller{f.ours(""), f.ours("/lan"), f.files("zstd"), f.files("raw")}
	for _, p := range f.p.peers {
		servers = append(servers, f.runs(p))
	}
	second := make([][]sample, len(servers))
	all, err := rounds(f.p.firsts, len(servers), func(i int) (sample, error) {
		a, b, err := f.pull(pl, servers[i], i < 1)
		second[i] = append(second[i], b)
		return a, err
	})
	if err != nil {
		return nil, err
	}
	what := func(which, form string) string {
		return fmt.Sprintf("%s pull by Nix %s, %s, %s, s", which, f.client("").version, form, pl.name)
	}
	var out []row
	add := func(what string, a, b []sample, most float64) {
		r := newRow(what, "%.2f", a, b, byValue)
		r.addCPU("%.2f s", a, b)
		if most != 0 {
			r.goal, r.missed = fmt.Sprintf("≤ %.2f × in wall", most), r.ratio.median > most
		}
		out = append(out, r)
	}
	add(what("first", "packed"), all[0], all[2], 0)
	add(what("second", "packed"), second[0], all[2], 0)
	add(what("first", "uncompressed (/lan)"), all[1], all[3], 0)
	for k, p := range f.p.peers {
		add(what("first", "packed")+", against "+p.name+" (not nginx)", all[0], all[4+k], 0)
		add(what("first", "uncompressed (/lan)")+", against "+p.name+" (not nginx)", all[1], all[4+k], 0)
	}
	return out, nil
}

// client is the newest Nix with an empty store and nothing in its memory.
func (f *first) client(name string) *nixClient {
	dir := filepath.Join(f.dir, "clients", name)
	return f.st.nix[len(f.st.nix)-1].at(filepath.Join(dir, "home"), filepath.Join(dir, "root"))
}

// pull is one sample, and with again a second one of the same server by another client.
func (f *first) pull(pl place, p puller, again bool) (a, b sample, err error) {
	f.n++
	dir := filepath.Join(f.dir, fmt.Sprintf("server-%d", f.n))
	s, url, err := p.start(pl, dir)
	if err != nil {
		return a, b, err
	}
	if s.log != "" { // ours to end
		defer remove(dir)
		defer s.stop()
	}
	if a, err = f.copyFrom(pl, s, url, pl.cold); err == nil && again {
		b, err = f.copyFrom(pl, s, url, false)
	}
	progress("pull, %s, %s: %.2f s, CPU %.2f s; again %.2f s, CPU %.2f s", pl.name, p.name, a.value, a.cpu, b.value, b.cpu)
	return a, b, err
}

func (f *first) copyFrom(pl place, s *server, url string, cold bool) (sample, error) {
	f.n++
	name := fmt.Sprintf("pull-%d", f.n)
	defer remove(filepath.Join(f.dir, "clients", name))
	n := f.client(name)
	args := []string{"copy", "--no-check-sigs", "--from", url, "--to", n.store()}
	return f.run(pl, s, n, cold, args)
}

// run is one Nix that copies the closure.
func (f *first) run(pl place, s *server, n *nixClient, cold bool, args []string) (sample, error) {
	if err := os.MkdirAll(n.home, 0o755); err != nil {
		return sample{}, err
	}
	for _, i := range f.st.paths {
		args = append(args, storeDir+"/"+string(i.Path))
	}
	if err := syncDisk(f.dir); err != nil {
		return sample{}, err
	}
	if cold {
		if err := chill(); err != nil {
			return sample{}, err
		}
	}
	if err := n.run("nix", "--version"); err != nil { // the program itself is to be hot
		return sample{}, err
	}
	cmd, err := pl.line.behind(n.command("nix", args...))
	if err != nil {
		return sample{}, err
	}
	before, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return sample{}, fmt.Errorf("copy with Nix %s, %s: %w\n%s", n.version, s.name, err, out[max(0, len(out)-4000):])
	}
	wall := time.Since(began)
	after, err := s.cpu()
	return sample{value: wall.Seconds(), cpu: (after - before).Seconds()}, err
}

// uploads measures one nix copy to an empty server.
func (f *first) uploads(pl place) ([]row, error) {
	starts := []func(dir string) (*server, error){
		func(dir string) (*server, error) { return startNarwharfOn(pl.host(), f.p.binary, dir, "") },
		func(dir string) (*server, error) {
			n := *f.nginx
			n.host = pl.host()
			return n.startOne(dir)
		},
	}
	all, err := rounds(f.p.firsts, len(starts), func(i int) (sample, error) { return f.upload(pl, starts[i]) })
	if err != nil {
		return nil, err
	}
	r := newRow(fmt.Sprintf("upload by one `nix copy` of Nix %s, %s, s", f.client("").version, pl.name), "%.2f", all[0], all[1], byValue)
	r.addCPU("%.2f s", all[0], all[1])
	if pl.line == nil {
		r.goal, r.missed = "≤ 1.25 × nginx", r.ratio.median > 1.25
	}
	return []row{r}, nil
}

func (f *first) upload(pl place, start func(dir string) (*server, error)) (sample, error) {
	f.n++
	dir := filepath.Join(f.dir, fmt.Sprintf("server-%d", f.n))
	s, err := start(dir)
	if err != nil {
		return sample{}, err
	}
	defer remove(dir)
	defer s.stop()
	name := fmt.Sprintf("upload-%d", f.n)
	defer remove(filepath.Join(f.dir, "clients", name))
	n := f.client(name)
	host, _, _ := strings.Cut(s.put, ":")
	if err := os.MkdirAll(n.home, 0o755); err != nil {
		return sample{}, err
	}
	if err := os.WriteFile(filepath.Join(n.home, "netrc"), []byte("machine "+host+" login bench password "+s.token+"\n"), 0o600); err != nil {
		return sample{}, err
	}
	out, err := f.run(pl, s, n, false, []string{"copy", "--option", "netrc-file", filepath.Join(n.home, "netrc"),
		"--from", "local?root=" + f.st.root, "--to", "http://" + s.put + "?compression=zstd"})
	progress("upload, %s, %s: %.2f s, CPU %.2f s", pl.name, s.name, out.value, out.cpu)
	return out, err
}
