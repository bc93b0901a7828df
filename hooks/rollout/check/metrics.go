package check

import (
	"sync"
	"time"

	metric "github.com/prometheus/client_golang/prometheus"
)

// tally is what a check has said since the server's start.
type tally struct {
	mu   sync.Mutex
	n    map[Said]int
	last Answer
}

func (t *tally) add(a *Answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[Said]int)
	}
	t.n[a.Said]++
	t.last = *a
}

var (
	answersDesc = metric.NewDesc("narwharf_check_answers_total", "Answers of checks, by what they said.", []string{"check", "said"}, nil)
	saysDesc    = metric.NewDesc("narwharf_check_says", "1 for what a check said last, else 0; of checks that were asked.", []string{"check", "said"}, nil)
	askedDesc   = metric.NewDesc("narwharf_check_asked_timestamp_seconds", "Unix time at which a check was asked last.", []string{"check"}, nil)
	tookDesc    = metric.NewDesc("narwharf_check_took_seconds", "How long its last answer took.", []string{"check"}, nil)
)

// sayings are what is said, as a label.
var sayings = map[Said]string{Yes: "yes", No: "no", None: "none"}

// Describe implements prometheus.Collector. What there is to tell is not known before.
func (s *Set) Describe(chan<- *metric.Desc) {}

// Collect implements prometheus.Collector.
func (s *Set) Collect(ch chan<- metric.Metric) {
	for _, name := range s.Names() {
		c := s.Get(name)
		if c == nil {
			continue
		}
		c.told.mu.Lock()
		last := c.told.last
		n := map[Said]int{Yes: c.told.n[Yes], No: c.told.n[No], None: c.told.n[None]}
		c.told.mu.Unlock()
		for said, label := range sayings {
			ch <- metric.MustNewConstMetric(answersDesc, metric.CounterValue, float64(n[said]), name, label)
		}
		if last.Asked.IsZero() {
			continue
		}
		for said, label := range sayings {
			is := 0.0
			if said == last.Said {
				is = 1
			}
			ch <- metric.MustNewConstMetric(saysDesc, metric.GaugeValue, is, name, label)
		}
		ch <- metric.MustNewConstMetric(askedDesc, metric.GaugeValue, float64(last.Asked.UnixNano())/float64(time.Second), name)
		ch <- metric.MustNewConstMetric(tookDesc, metric.GaugeValue, last.Took.Seconds(), name)
	}
}
