package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A disk that CI fills again and again heals itself: no upload is refused, what a channel names stays,
// and what was of no use for longest goes.
func TestFullDiskHealsItself(t *testing.T) {
	t.Parallel()
	s, _ := newServerOn(t, 64<<20, func(c *Config) { c.Retention = []string{`grace = "1h"`, `lease = "1s"`} })
	ci := s.Token("ci", "push", "promote:web", "operate")
	st := NewUploader(t, s.URL(), ci)
	p := newPromoter(s, s.bin, ci, NewKey("deploy-1"))
	named := NewPath("named", RandomNAR(2000, 4<<20))
	st.Upload(named)
	p.promote(0, "promoted web to seq 1", storePath(named))
	var last *Path
	for i := range 40 {
		last = NewPath(fmt.Sprintf("build-%d", i), RandomNAR(uint64(2001+i), 4<<20))
		st.Upload(last)
		time.Sleep(150 * time.Millisecond)
	}
	st.Fetch(named)
	st.Fetch(last)
	p.must(0, "channel web keeps it, by its release 1", "why", storePath(named))
	p.must(0, "is not here", "why", storePath(NewPath("build-0", RandomNAR(2001, 4<<20))))
	p.must(0, "channel web", "du")
	s.Fsck()
}

// Under max_size by itself: a year of builds that share most of their paths, in small.
func TestStaysUnderMaxSize(t *testing.T) {
	t.Parallel()
	const most = 8 << 20
	s := NewServer(t, func(c *Config) {
		c.Retention = []string{`grace = "2s"`, `lease = "1s"`, fmt.Sprintf("max_size = %d", most), `interval = "1s"`, "keep_releases = 2"}
	})
	ci := s.Token("ci", "push", "promote:web", "operate")
	st := NewUploader(t, s.URL(), ci)
	p := newPromoter(s, s.bin, ci, NewKey("deploy-1"))
	shared := NewPath("shared", RandomNAR(3000, 1<<20))
	st.Upload(shared)
	host := newFollower(s, s.Token("host", "follow:web"), "web-1", storePath(shared))
	var systems []*Path
	for day := range 24 {
		path := NewPath(fmt.Sprintf("system-%d", day), RandomNAR(uint64(3001+day), 1<<20), shared)
		st.Upload(path)
		if day%4 == 0 {
			systems = append(systems, path)
			p.promote(0, fmt.Sprintf("promoted web to seq %d", len(systems)), storePath(path))
			if len(systems) == 2 { // it stays there
				host.current = storePath(path)
				host.report("ok", 2, storePath(path))
			}
		}
		time.Sleep(150 * time.Millisecond)
	}
	eventually(t, 30*time.Second, func() string {
		_, rest, _ := strings.Cut(s.Metrics(), "\nnarwharf_cache_bytes ")
		text, _, _ := strings.Cut(rest, "\n")
		if size, err := strconv.ParseFloat(text, 64); err != nil || size > most {
			return fmt.Sprintf("the cache has %s bytes, %d at most (%v)", text, most, err)
		}
		return ""
	})
	for _, path := range append([]*Path{shared, systems[1]}, systems[len(systems)-2:]...) {
		st.Fetch(path)
	}
	p.must(0, "host web-1 runs it", "why", storePath(systems[1]))
	p.must(0, "(collected)", "channel", "history", "web")
	p.must(2, "was collected", "rollback", "web", "--to", "1", "--key", "deploy.sec")
	s.Fsck()
}
