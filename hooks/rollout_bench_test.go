package hooks

import (
	"runtime"
	"testing"
	"time"

	"narwharf/hooks/rollout"
)

// BenchmarkRollout is a release that goes out to 10,000 hosts in two waves, a tenth of them
// at a time: in this process, without HTTP, on a state that does not sync.
func BenchmarkRollout(b *testing.B) {
	hosts := 10_000
	for range b.N {
		w := newWorld(b)
		f := &fleet{world: w, later: w.standing()}
		f.populate(hosts)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began := time.Now()
		f.policy(`{"rollout":{"waves":[{"max":"1%"},{}],"max_concurrency":"10%"}}`)
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-govern")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(hosts), "B/host")
		began = time.Now()
		f.promote(2, f.entry("*", f.systems["b"]))
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-promote")
		first := f.s.Rollouts.State().Steps
		stepping, slowest := time.Duration(0), time.Duration(0)
		turn := func() {
			began := time.Now()
			f.s.Rollouts.Begin()
			took := time.Since(began)
			stepping += took
			slowest = max(slowest, took)
		}
		for f.show().State != rollout.Completed {
			turn()
			for i, m := range f.robots {
				if f.step(m); i%100 == 99 {
					turn()
				}
			}
		}
		steps := f.s.Rollouts.State().Steps - first
		b.ReportMetric(float64(hosts)/stepping.Seconds(), "grants/s")
		b.ReportMetric(float64(stepping.Microseconds())/float64(steps), "µs/step")
		b.ReportMetric(float64(slowest.Milliseconds()), "ms-slowest-step")
		b.ReportMetric(float64(steps), "steps")
		m := f.robots[0]
		began = time.Now()
		m.st.Attempt += "x"
		f.says(m)
		f.s.Rollouts.Begin()
		b.ReportMetric(float64(time.Since(began).Microseconds()), "µs-report+step")
		f.halt()
		began = time.Now()
		f.serve(f.db)
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-start")
	}
}
