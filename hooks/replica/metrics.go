package replica

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	serversDesc  = prometheus.NewDesc("narwharf_replicas", "Servers that share the state, as this one read last: there, or silent.", []string{"state"}, nil)
	differDesc   = prometheus.NewDesc("narwharf_replica_differs", "Servers whose keys or configuration differ from those of this one.", nil, nil)
	heardDesc    = prometheus.NewDesc("narwharf_replica_told_timestamp_seconds", "When this server last told the others that it is there.", nil, nil)
	lagDesc      = prometheus.NewDesc("narwharf_replica_lag_seconds", "How late this server heard of the last change of another.", nil, nil)
	clockDesc    = prometheus.NewDesc("narwharf_replica_clock_seconds", "By how much the clock of this machine is behind that of the database.", nil, nil)
	doesDesc     = prometheus.NewDesc("narwharf_replica_does", "1 for what one server at a time does and this one now.", []string{"work"}, nil)
	awayDesc     = prometheus.NewDesc("narwharf_state_away_seconds", "For how long the database does not answer; 0 while it does.", nil, nil)
	versionsDesc = prometheus.NewDesc("narwharf_replica_versions", "Of how many versions the programs of the servers are.", nil, nil)
)

// Describe is for Prometheus.
func (b *Book) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{serversDesc, differDesc, heardDesc, lagDesc, clockDesc, doesDesc, awayDesc, versionsDesc} {
		to <- d
	}
}

// read is what Once read last of all servers. The database is not asked for metrics.
type read struct {
	told             time.Time
	there, silent    int
	differs          int
	versions         int
	does             map[string]bool // kinds of work: whether this server does it
	lag, clockBehind time.Duration
}

// note keeps what Once read.
func (b *Book) note(all map[string]*row, does map[string][]string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := read{told: now, does: b.last.does, lag: b.lag, clockBehind: b.Ahead()}
	if last.does == nil {
		last.does = make(map[string]bool)
	}
	for work := range last.does { // what nobody does any more is told, too
		last.does[work] = false
	}
	for who, works := range does {
		for _, work := range works {
			if who != "" { // else nobody drives roll-outs
				last.does[work] = who == b.Name
			}
		}
	}
	versions := make(map[string]bool)
	for _, r := range all {
		if now.Sub(r.At) > silent {
			last.silent++
			continue
		}
		last.there++
		versions[r.Version] = true
		if len(differ(all[b.ID], r)) > 0 {
			last.differs++
		}
	}
	last.versions = len(versions)
	b.last = last
}

// Collect is for Prometheus.
func (b *Book) Collect(to chan<- prometheus.Metric) {
	b.mu.Lock()
	defer b.mu.Unlock()
	send := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	away := 0.0
	if b.Away != nil {
		if since := b.Away(); !since.IsZero() {
			away = time.Since(since).Seconds()
		}
	}
	send(awayDesc, away)
	if b.last.told.IsZero() {
		return
	}
	send(serversDesc, float64(b.last.there), "there")
	send(serversDesc, float64(b.last.silent), "silent")
	send(differDesc, float64(b.last.differs))
	send(heardDesc, float64(b.last.told.UnixMilli())/1000)
	send(lagDesc, b.last.lag.Seconds())
	send(clockDesc, b.last.clockBehind.Seconds())
	send(versionsDesc, float64(b.last.versions))
	for work, mine := range b.last.does {
		value := 0.0
		if mine {
			value = 1
		}
		send(doesDesc, value, work)
	}
}
