package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What a server asks the database for: a report is two messages to it and back, the first with locks and all that is
// read, the second with all that is written and the commit. Polls and NARs are answered from memory. Whoever follows
// the audit log reads it once for many lines, so 16 hosts report at a time. What both servers do by themselves is taken off.
func TestStatements(t *testing.T) {
	if os.Getenv("NARWHARF_SCALE") != "1" {
		t.Skip("it runs with make e2e-scale")
	}
	c := newCluster(t, options{settings: []string{"shared_preload_libraries=pg_stat_statements"}})
	s, line := c.all[0], c.lines[0].db
	p := NewPath("p", RandomNAR(1, 100_000))
	NewUploader(t, s.URL(), c.admin).Upload(p)
	token, anyone := s.Token("hosts", "follow:*", "pull"), NewUploader(t, s.URL(), "")
	hosts := make([]*follower, 16)
	for i := range hosts {
		hosts[i] = newFollower(s, token, fmt.Sprintf("web-%d", i), storePath(p)).today()
		hosts[i].more["instance"] = fmt.Sprintf("%032x", i+1)
	}
	nar := "/" + anyone.Fetch(p).URL
	for _, m := range []struct {
		name              string
		statements, trips float64 // of each, at most; 0: it is told and not judged
		do                func(i int)
	}{
		{"report", 14, 6.5, func(i int) {
			together(len(hosts), func(at int) {
				hosts[at].report([]string{"staging", "staged", "activating", "ok"}[i%4], int64(1+i/4), storePath(p))
			})
		}},
		{"poll", 0.5, 0.3, func(int) { together(len(hosts), func(at int) { hosts[at].desired() }) }},
		{"NAR", 0.5, 0.3, func(int) { anyone.Get(nar) }},
		{"narinfo, anonymous", 0.5, 0.3, func(int) { anyone.Get("/" + p.Hash() + ".narinfo") }},
		{"narinfo, by who may upload", 0, 0, func(int) { NewUploader(t, s.URL(), c.admin).Get("/" + p.Hash() + ".narinfo") }},
		{"upload", 0, 0, func(i int) { NewUploader(t, s.URL(), c.admin).Upload(NewPath("u", RandomNAR(uint64(10+i), 1000))) }},
	} {
		n := 100
		for i := range 8 { // statements are prepared
			m.do(i)
		}
		if m.name == "report" || m.name == "poll" {
			n *= len(hosts)
		}
		rest := c.asked(line, func() { time.Sleep(5 * time.Second) })
		is := c.asked(line, func() {
			for i := range 100 {
				m.do(8 + i)
			}
		})
		idle := is.took.Seconds() / rest.took.Seconds()
		statements := (float64(is.statements) - idle*float64(rest.statements)) / float64(n)
		trips := (float64(is.trips) - idle*float64(rest.trips)) / float64(n)
		t.Logf("a %s: %.2f statements, %.2f round trips of one server\n%s", m.name, statements, trips, strings.Join(is.kinds, "\n"))
		if m.trips > 0 && (statements > m.statements || trips > m.trips) {
			t.Errorf("a %s is more than %.1f statements or %.1f round trips", m.name, m.statements, m.trips)
		}
	}
	if r := anyone.Get("/readyz"); r.Status != http.StatusOK {
		t.Error(r)
	}
}

// asked is what a database was asked.
type asked struct {
	statements, trips int64
	took              time.Duration
	kinds             []string
}

// asked counts what all servers ask while do runs, and the round trips on one's line.
func (c *cluster) asked(line *Proxy, do func()) (a asked) {
	c.t.Helper()
	count := func() map[string]int64 {
		all, err := c.db.Statements(c.name)
		if err != nil {
			c.t.Fatal(err)
		}
		return all
	}
	before, begun, trips := count(), time.Now(), line.Pieces(Up)
	do()
	a.took, a.trips = time.Since(begun), line.Pieces(Up)-trips
	after := count()
	for _, q := range slices.Sorted(maps.Keys(after)) {
		if d := after[q] - before[q]; d > 0 && !strings.Contains(q, "pg_stat_statements") {
			a.statements += d
			a.kinds = append(a.kinds, fmt.Sprintf("%6d  %s", d, strings.Join(strings.Fields(q), " ")))
		}
	}
	return a
}
