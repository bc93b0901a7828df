package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// What a server asks the database for: a report is two messages to it and back, the first with locks and all that is
// read, the second with all that is written and the commit. Polls and NARs are answered from memory. Whoever follows
// the audit log reads it once for many lines, so 16 hosts report at a time. What both servers do by themselves is counted, too.
func TestStatements(t *testing.T) {
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
		statements, trips float64 // of each, at most
		do                func(i int)
	}{
		{"report", 12, 3, func(i int) {
			together(len(hosts), func(at int) {
				hosts[at].report([]string{"staging", "staged", "activating", "ok"}[i%4], int64(1+i/4), storePath(p))
			})
		}},
		{"poll", 0.3, 0.1, func(int) { together(len(hosts), func(at int) { hosts[at].desired() }) }},
		{"NAR", 0.5, 0.3, func(int) { anyone.Get(nar) }},
		{"narinfo, anonymous", 0.5, 0.3, func(int) { anyone.Get("/" + p.Hash() + ".narinfo") }},
		{"narinfo, by who may upload", 8, 6, func(int) { NewUploader(t, s.URL(), c.admin).Get("/" + p.Hash() + ".narinfo") }},
		{"upload", 60, 40, func(i int) { NewUploader(t, s.URL(), c.admin).Upload(NewPath("u", RandomNAR(uint64(10+i), 1000))) }},
	} {
		n := 100
		for i := range 8 { // statements are prepared
			m.do(i)
		}
		before, err := c.db.Statements(c.name)
		if err != nil {
			t.Fatal(err)
		}
		trips := line.Pieces(Up)
		for i := range n {
			m.do(8 + i)
		}
		trips = line.Pieces(Up) - trips
		after, err := c.db.Statements(c.name)
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		if m.name == "report" || m.name == "poll" {
			n *= len(hosts)
		}
		sum := int64(0)
		for _, q := range slices.Sorted(maps.Keys(after)) {
			if d := after[q] - before[q]; d > 0 && !strings.Contains(q, "pg_stat_statements") {
				sum += d
				kinds = append(kinds, fmt.Sprintf("%6.2f  %s", float64(d)/float64(n), strings.Join(strings.Fields(q), " ")))
			}
		}
		t.Logf("a %s: %.2f statements, %.2f round trips\n%s", m.name, float64(sum)/float64(n), float64(trips)/float64(n), strings.Join(kinds, "\n"))
		if float64(sum)/float64(n) > m.statements || float64(trips)/float64(n) > m.trips {
			t.Errorf("a %s is more than %.1f statements or %.1f round trips", m.name, m.statements, m.trips)
		}
	}
	if r := anyone.Get("/readyz"); r.Status != http.StatusOK {
		t.Error(r)
	}
}
