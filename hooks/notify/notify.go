package notify

import (
	"context"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/state"
	"narwharf/cache/state/lease"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/notify"
	"narwharf/hooks/audit"
	"narwharf/narinfo/clip"
)

// Options of New.
type Options struct {
	Set       *mirror.Set
	Targets   []Target
	PublicURL string // of the server, "" if it has none
	Version   string
	// Alarms ends alarms, if they are open.
	Alarms interface {
		Over(ctx context.Context, e api.Event) error
	}
	Clock func() time.Time
	Log   *slog.Logger
	// Lease lets one of the servers that share the state tell a target; nil: no other has it.
	Lease func(work string) *lease.Lease

	transport http.RoundTripper // for tests; nil: the network
}

// Sender sends to all targets.
type Sender struct {
	o      Options
	queues []*queue
}

// New makes a Sender. It does nothing before Tend.
func New(o Options) *Sender {
	s := &Sender{o: o}
	for i := range o.Targets {
		q := &queue{o: &s.o, target: &o.Targets[i], client: newClient(o.Targets[i].Private), bell: audit.NewBell()}
		if o.transport != nil {
			q.client.Transport = o.transport
		}
		s.queues = append(s.queues, q)
	}
	return s
}

// Noticed passes on which topics the state notified of.
func (s *Sender) Noticed(topics []string) {
	for _, q := range s.queues {
		q.bell.Noticed(topics)
	}
}

// Tend sends until ctx ends. What is on its way then is sent again by the next server.
func (s *Sender) Tend(ctx context.Context) {
	if err := s.forget(ctx); err != nil && ctx.Err() == nil {
		s.o.Log.Error("notify: targets of before are not forgotten", "error", err)
	}
	var all sync.WaitGroup
	for _, q := range s.queues {
		all.Go(func() {
			var one *lease.Lease
			if s.o.Lease != nil {
				one = s.o.Lease("notify:" + q.target.Name)
			}
			one.Run(ctx, q.lead)
		})
	}
	all.Wait()
}

// forget drops the rows of targets that are not configured any more: one that comes back is told what happens from then on.
func (s *Sender) forget(ctx context.Context) error {
	return s.o.Set.Update(ctx, nil, func(tx *mirror.Tx) error {
		return state.Each(tx, bucket, state.Range{}, func(e state.Entry) error {
			if s.find(e.Key) != nil {
				return nil
			}
			return tx.Delete(bucket, e.Key)
		})
	})
}

func (s *Sender) find(name string) *queue {
	for _, q := range s.queues {
		if q.target.Name == name {
			return q
		}
	}
	return nil
}

// List shows the targets, as they are configured.
func (s *Sender) List() []notify.Target {
	list := []notify.Target{}
	for _, q := range s.queues {
		list = append(list, q.show())
	}
	return list
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CheckName says what is wrong with the name of a target.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return api.Errorf(api.BadRequest, "%q is not the name of a target: 1 to 63 of a to z, 0 to 9 and -", clip.Line(name, 100))
	}
	return nil
}

// Test sends one event to a target now, past its queue, and tells what came of it. "" is a usual text.
func (s *Sender) Test(ctx context.Context, name, text, by string) (*notify.Attempt, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	q := s.find(name)
	if q == nil {
		return nil, api.Errorf(api.NotFound, "there is no [[notify]] with the name %s in the server's configuration: narwharf notify list has those that are", name)
	}
	if text == "" {
		text = "a test: whoever reads this is told what happens here"
	}
	e := &api.Event{Time: s.o.Clock().UTC(), Kind: "notify.test", By: by, Text: clip.Text(text, maxText)}
	a, _, _ := q.post(ctx, e)
	return a, nil
}

var (
	sentDesc    = prometheus.NewDesc("narwharf_notify_events_total", "Events that a target of notify was to be told, by what became of them.", []string{"target", "result"}, nil)
	queuedDesc  = prometheus.NewDesc("narwharf_notify_queued", "Events that wait for a target of notify.", []string{"target"}, nil)
	failingDesc = prometheus.NewDesc("narwharf_notify_failing_seconds", "For how long a target of notify has taken nothing of what it is sent.", []string{"target"}, nil)
)

// Describe implements prometheus.Collector.
func (s *Sender) Describe(to chan<- *prometheus.Desc) {
	to <- sentDesc
	to <- queuedDesc
	to <- failingDesc
}

// Collect implements prometheus.Collector.
func (s *Sender) Collect(to chan<- prometheus.Metric) {
	for _, q := range s.queues {
		t := q.show()
		for result, n := range map[string]int64{"sent": t.Sent, "refused": t.Refused, "dropped": t.Dropped} {
			to <- prometheus.MustNewConstMetric(sentDesc, prometheus.CounterValue, float64(n), t.Name, result)
		}
		to <- prometheus.MustNewConstMetric(queuedDesc, prometheus.GaugeValue, float64(t.Queued), t.Name)
		failing := 0.0
		if t.Failing != nil {
			failing = max(s.o.Clock().Sub(*t.Failing).Seconds(), 0)
		}
		to <- prometheus.MustNewConstMetric(failingDesc, prometheus.GaugeValue, failing, t.Name)
	}
}
