package check

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"

	"narwharf/hooks/rollout"
)

// scripted says one thing after the other, and the last for ever.
type scripted struct {
	mu   sync.Mutex
	says []Said
	n    int
	took time.Duration
}

func (s *scripted) ask(ctx context.Context, _ *About) (Said, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := s.says[min(s.n, len(s.says)-1)]
	s.n++
	select {
	case <-ctx.Done():
		return None, "ended"
	case <-time.After(s.took):
	}
	return said, fmt.Sprint(s.n)
}

func (s *scripted) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// world is roll-outs of which a test says what bakes.
type world struct {
	mu    sync.Mutex
	bakes []Bake
	told  []rollout.Checked
}

func (w *world) Bakes() []Bake {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.bakes)
}

func (w *world) set(bakes ...Bake) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bakes = bakes
}

func (w *world) Checked(_ context.Context, c rollout.Checked) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, c)
	return nil
}

func (w *world) texts() (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.told {
		said := fmt.Sprint(c.OK)
		if c.None {
			said = "none"
		}
		list = append(list, fmt.Sprintf("%s@%d/%d %s %s %s", c.Channel, c.Seq, c.Wave, c.Name, said, c.Detail))
	}
	return list
}

func run(t *testing.T, fn func(w *world, set *Set)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, set := new(world), &Set{all: make(map[string]*Check)}
		l := &Loop{Checks: set, Rollouts: w, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.Run(ctx); close(done) }()
		fn(w, set)
		cancel()
		<-done
	})
}

func put(set *Set, name string, s *scripted, failures int) {
	set.mu.Lock()
	defer set.mu.Unlock()
	set.all[name] = &Check{told: new(tally), Spec: Spec{Name: name, Interval: 10 * time.Second, Timeout: 5 * time.Second, Failures: failures}, asker: s}
}

func bake(since time.Time, names ...string) Bake {
	return Bake{About: About{Channel: "web", Seq: 3, Wave: 1}, Since: since, Names: names}
}

// A check is asked at once, then at its interval, until the bake is over; the next bake
// asks anew.
func TestLoop(t *testing.T) {
	run(t, func(w *world, set *Set) {
		a := &scripted{says: []Said{Yes}}
		put(set, "a", a, 1)
		time.Sleep(5 * time.Second)
		if a.asked() != 0 {
			t.Error("it was asked and nothing bakes")
		}
		start := time.Now()
		w.set(bake(start, "a"))
		time.Sleep(25*time.Second + time.Millisecond)
		if got := w.texts(); !slices.Equal(got, []string{"web@3/1 a true 1", "web@3/1 a true 2", "web@3/1 a true 3"}) {
			t.Errorf("told %q", got)
		}
		w.set()
		time.Sleep(time.Minute)
		if n := a.asked(); n != 3 {
			t.Errorf("asked %d times, also after the bake", n)
		}
		w.set(bake(start.Add(time.Hour), "a"))
		time.Sleep(2 * time.Second)
		if n := a.asked(); n != 4 {
			t.Errorf("asked %d times, of which one in the second bake", n)
		}
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.told {
			if c.Asked.Before(start) || c.Stands != 40*time.Second {
				t.Errorf("asked at %s, which stands for %s", c.Asked, c.Stands)
			}
		}
	})
}

// A No counts only when it came often enough in a row; till then, and for none, it is said why.
func TestLoopFailures(t *testing.T) {
	run(t, func(w *world, set *Set) {
		put(set, "a", &scripted{says: []Said{No, No, Yes, No, None, No, No, No}}, 3)
		w.set(bake(time.Now(), "a"))
		time.Sleep(75 * time.Second)
		if got := w.texts(); !slices.Equal(got, []string{
			"web@3/1 a none it says no (1 of 3 times): 1", "web@3/1 a none it says no (2 of 3 times): 2", "web@3/1 a true 3", "web@3/1 a none it says no (1 of 3 times): 4",
			"web@3/1 a none 5", "web@3/1 a none it says no (1 of 3 times): 6", "web@3/1 a none it says no (2 of 3 times): 7", "web@3/1 a false 8",
		}) {
			t.Errorf("told %q", got)
		}
	})
}

// What is asked when the bake ends is not told, and holds nobody up.
func TestLoopEnds(t *testing.T) {
	run(t, func(w *world, set *Set) {
		put(set, "slow", &scripted{says: []Said{No}, took: 4 * time.Second}, 1)
		w.set(bake(time.Now(), "slow"))
		time.Sleep(2 * time.Second)
		w.set()
		time.Sleep(20 * time.Second)
		if got := w.texts(); len(got) != 0 {
			t.Errorf("told %q after the bake", got)
		}
	})
}

// Configuration that changes meanwhile counts with the next question.
func TestReplace(t *testing.T) {
	run(t, func(w *world, set *Set) {
		put(set, "a", &scripted{says: []Said{Yes}}, 1)
		w.set(bake(time.Now(), "a"))
		time.Sleep(2 * time.Second)
		set.Replace(&Set{})
		time.Sleep(5 * time.Minute)
		got := w.texts()
		if len(got) != 11 || got[0] != "web@3/1 a true 1" || got[1] != "web@3/1 a none it is not in this server's configuration any more" {
			t.Errorf("told %q", got)
		}
	})
}

// What checks said is counted, also over another configuration; what nobody waits for any more is not.
func TestMetrics(t *testing.T) {
	made := func() *Set {
		s, err := NewSet([]Spec{{Name: "one", Command: []string{"/bin/true"}}, {Name: "two", Command: []string{"/bin/true"}}})
		if err != nil {
			t.Fatal(err)
		}
		s.Get("one").asker = &scripted{says: []Said{Yes, No, None, Yes}}
		return s
	}
	s := made()
	for range 3 {
		s.Get("one").Ask(t.Context(), &About{})
	}
	s.Replace(made())
	s.Get("one").Ask(t.Context(), &About{})
	over, end := context.WithCancel(t.Context())
	end()
	s.Get("one").Ask(over, &About{})
	got := make(map[string]float64)
	reg := prom.NewRegistry()
	reg.MustRegister(s, (*Set)(nil))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"narwharf_check_answers_total one yes": 2, "narwharf_check_answers_total one no": 1, "narwharf_check_answers_total one none": 1,
		"narwharf_check_says one yes": 1, "narwharf_check_says one none": 0, "narwharf_check_answers_total two yes": 0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if _, asked := got["narwharf_check_says two yes"]; asked || got["narwharf_check_asked_timestamp_seconds one"] < 1e9 {
		t.Errorf("%v", got)
	}
}
