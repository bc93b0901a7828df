package e2e

import (
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/history"
	"narwharf/e2e/repository"
)

// disaster is what happens to a cluster while clients use it.
type disaster struct {
	name    string
	smoke   bool // also without NARWHARF_SCALE=1
	options options
	// strike has it happen, and returns when it is over. What happens more than once is struck more than once.
	strike func(c *cluster, w *clients)
}

var disasters = []disaster{
	{name: "nothing", smoke: true, strike: func(*cluster, *clients) {}},
	{name: "killed in uploads", strike: func(c *cluster, _ *clients) {
		for i := range 4 {
			time.Sleep(500*time.Millisecond + mrand.N(time.Second))
			c.restart(c.all[i%2], 300*time.Millisecond)
		}
	}},
	{name: "killed in promotes", smoke: true, strike: func(c *cluster, w *clients) {
		for range 6 {
			c.restart(w.promoting(), 300*time.Millisecond)
			time.Sleep(time.Second)
		}
	}},
	{name: "killed as driver", smoke: true, strike: func(c *cluster, _ *clients) {
		for range 2 {
			c.restart(c.who("rollouts"), 12*time.Second)
		}
	}},
	{name: "killed as collector", options: options{retention: []string{`grace = "5s"`, `lease = "5s"`, `max_size = "2MiB"`, `interval = "1s"`}}, strike: func(c *cluster, _ *clients) {
		for range 3 {
			c.restart(c.who("collect"), time.Second)
			time.Sleep(3 * time.Second)
		}
	}},
	{name: "driver stopped for 15 s", strike: func(c *cluster, _ *clients) {
		c.suspend(c.who("rollouts"), 15*time.Second)
		time.Sleep(5 * time.Second) // it is awake, and believes what it did
	}},
	{name: "database restarted", smoke: true, strike: func(c *cluster, w *clients) {
		for range 2 {
			c.db.Down(true)
			time.Sleep(time.Second)
			if err := c.db.Up(); err != nil {
				c.t.Fatal(err)
			}
			w.await(1)
		}
	}},
	{name: "database failed over, synchronous", options: options{standby: true, synchronous: true}, strike: func(c *cluster, _ *clients) {
		c.db.Down(true)
		if err := c.standby.Promote(); err != nil {
			c.t.Fatal(err)
		}
		if err := c.standby.Exec("postgres", `alter system reset synchronous_standby_names`); err != nil {
			c.t.Fatal(err)
		}
	}},
	{name: "database out of connections", strike: func(c *cluster, _ *clients) {
		release, err := c.db.Exhaust(c.name)
		if err != nil {
			c.t.Error(err)
		}
		time.Sleep(8 * time.Second)
		release()
	}},
	{name: "database read only", strike: func(c *cluster, _ *clients) {
		c.sql(`alter database %[1]s set default_transaction_read_only = on`, `select pg_terminate_backend(pid) from pg_stat_activity where datname = '%[1]s'`)
		time.Sleep(8 * time.Second)
		c.sql(`alter database %[1]s reset default_transaction_read_only`)
	}},
	{name: "database slow, 100 ms each way", strike: func(c *cluster, _ *clients) {
		for _, l := range c.lines {
			l.db.Delay(100 * time.Millisecond)
		}
		time.Sleep(15 * time.Second)
		for _, l := range c.lines {
			l.db.Delay(0)
		}
	}},
	{name: "bucket away", strike: func(c *cluster, _ *clients) {
		c.bucket.Stop()
		time.Sleep(20 * time.Second)
		c.bucket.Start()
	}},
	{name: "one cut off from database and bucket", strike: func(c *cluster, _ *clients) {
		s := c.who("rollouts")
		l := c.lineOf(s)
		l.db.Freeze(true)
		l.bucket.Freeze(true)
		time.Sleep(20 * time.Second)
		l.db.Freeze(false)
		l.bucket.Freeze(false)
	}},
	{name: "one clock 10 min ahead", options: options{bin: map[int]string{1: "ahead"}}, strike: func(c *cluster, _ *clients) {
		for range 2 {
			time.Sleep(4 * time.Second)
			c.restart(c.who("rollouts"), 10*time.Second)
		}
	}},
}

// await waits until both channels have so many more releases.
func (w *clients) await(n int) {
	w.c.t.Helper()
	count := func() (web, waves int) {
		for _, o := range w.log.Ops() {
			if o.Kind == history.Promote && o.Outcome == history.OK && o.Key == "web" {
				web++
			} else if o.Kind == history.Promote && o.Outcome == history.OK {
				waves++
			}
		}
		return web, waves
	}
	before, was := count()
	soon(w.c.t, 2*time.Minute, func() string {
		time.Sleep(100 * time.Millisecond)
		if web, waves := count(); web < before+n || waves < was+n {
			return fmt.Sprintf("%d promotes of web and %d of waves, not %d more than %d and %d", web, waves, n, before, was)
		}
		return ""
	})
}

// promoting waits until a promote is sent to some server, and a moment more.
func (w *clients) promoting() *Server {
	select {
	case <-w.promotes: // an old one
	default:
	}
	for {
		url := <-w.promotes
		if i := slices.IndexFunc(w.c.all, func(s *Server) bool { return s.URL() == url }); i >= 0 {
			time.Sleep(mrand.N(25 * time.Millisecond))
			return w.c.all[i]
		}
	}
}

// sql runs statements in the database of all databases, with the name of the cluster's.
func (c *cluster) sql(statements ...string) {
	c.t.Helper()
	for _, s := range statements {
		if err := c.db.Exec("postgres", fmt.Sprintf(s, c.name)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// Whatever happens to servers, database and bucket: nothing that was answered is lost, no host misses a
// release or is granted one twice, and hosts see nothing but a delay. narwharf/e2e/history has what that means.
func TestFaults(t *testing.T) {
	hosts := 6
	table := []string{"| fault | promotes ok, refused, unknown | uploads | reports, unknown | grants | longest wait of a host | checker |", "|---|---|---|---|---|---|---|"}
	for _, f := range disasters {
		if os.Getenv("NARWHARF_SCALE") != "1" && !f.smoke {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			row := f.run(t, hosts)
			table = append(table, row)
		})
	}
	t.Log("\n" + strings.Join(table, "\n"))
}

func (f disaster) run(t *testing.T, hosts int) (row string) {
	if f.options.bin != nil {
		f.options.bin = map[int]string{1: aheadBin(t)}
	}
	c := newCluster(t, f.options)
	w := startClients(c, hosts, f.options.retention != nil)
	w.await(2)
	struck := w.log.Now()
	f.strike(c, w)
	healed := w.log.Now()
	c.ready(30 * time.Second)
	w.await(2)
	ops, wrong := w.finish(t, struck, healed)
	for _, complaint := range wrong {
		t.Error(complaint)
	}
	count := func(k history.Kind, o history.Outcome) int { return history.Count(ops, k, o) }
	if count(history.Promote, history.OK) < 3 || count(history.Grant, history.OK) < hosts {
		t.Errorf("the test saw too little: %d promotes, %d grants", count(history.Promote, history.OK), count(history.Grant, history.OK))
	}
	row = fmt.Sprintf("| %s | %d, %d, %d | %d | %d, %d | %d | %.1f s | %s |", f.name,
		count(history.Promote, history.OK), count(history.Promote, history.Refused), count(history.Promote, history.Unknown),
		count(history.Upload, history.OK), count(history.Report, history.OK), count(history.Report, history.Unknown), count(history.Grant, history.OK),
		history.Wait(ops, "web").Seconds(), map[bool]string{true: "nothing wrong", false: fmt.Sprint(len(wrong), " wrong")}[len(wrong) == 0])
	t.Log(row)
	return row
}

// aheadBin is the program with a clock that is ten minutes ahead, however it is asked.
func aheadBin(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		lacking(t, "no Go to compile a program with another clock: %v", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const now = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), now) != 1 {
		t.Fatalf("%s has not the line %q once", source, now)
	}
	dir := scratch(t)
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	changed := write("time.go", strings.Replace(string(text), now, now+"\tsec += 600\n", 1))
	overlay := write("overlay.json", fmt.Sprintf(`{"Replace": {%q: %q}}`, source, changed))
	cmd := exec.Command("go", "build", "-trimpath", "-overlay", overlay, "-o", filepath.Join(dir, "narwharf"), "./cmd/narwharf")
	cmd.Dir = repository.Root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(dir, "narwharf")
}
