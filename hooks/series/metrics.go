package series

import (
	"math"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// CacheGroup is the group of the cache, Channel that of a channel.
const CacheGroup = "cache"

// Channel is the group of a channel.
func Channel(name string) string { return "channel/" + name }

// A pick is a metric of docs/metrics.md whose values become columns.
type pick struct {
	metric string // without its prefix
	column string // ends in a dot: the value of the label "by" follows
	by     string
	only   [2]string // a label and its value: others do not count
	gauge  bool
}

// The columns of the cache.
var ofCache = []pick{
	{metric: "http_requests_total", column: "requests"},
	{metric: "http_requests_total", column: "narinfo.", by: "status", only: [2]string{"route", "narinfo"}},
	{metric: "http_sent_bytes_total", column: "sent.", by: "source"},
	{metric: "http_received_bytes_total", column: "received"},
	{metric: "upstream_received_bytes_total", column: "pulled"},
	{metric: "uploads_total", column: "uploads.", by: "result"},
	{metric: "upload_refusals_total", column: "refused.", by: "kind"},
	{metric: "cache_paths", column: "paths", gauge: true},
	{metric: "cache_bytes", column: "bytes", gauge: true},
	{metric: "cache_unpacked_bytes", column: "unpacked", gauge: true},
	{metric: "pack_bytes", column: "copies", gauge: true},
	{metric: "disk_free_bytes", column: "free", gauge: true},
}

// The columns of each channel; their metrics have a label "channel". A channel that has no
// narwharf_channel_seq is none.
var ofChannel = []pick{
	{metric: seqMetric, column: "seq", gauge: true},
	{metric: "hosts", column: "hosts.", by: "state", gauge: true},
	{metric: "hosts_converged", column: "converged", gauge: true},
	{metric: "hosts_held", column: "held", gauge: true},
}

const (
	prefix    = "narwharf_"
	seqMetric = "channel_seq"
)

// FromMetrics is a sample of the metrics of this server.
func FromMetrics(from prometheus.Gatherer) func() ([]Group, error) {
	return func() ([]Group, error) {
		families, err := from.Gather()
		if err != nil {
			return nil, err
		}
		cache, channels := sums{}, make(map[string]sums)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				labels := make(map[string]string, len(m.GetLabel()))
				for _, l := range m.GetLabel() {
					labels[l.GetName()] = l.GetValue()
				}
				v := m.GetCounter().GetValue() + m.GetGauge().GetValue() // it has one of them
				cache.add(ofCache, f.GetName(), labels, v)
				name := labels["channel"]
				of := channels[name]
				if of == nil {
					of = sums{}
				}
				if of.add(ofChannel, f.GetName(), labels, v) {
					channels[name] = of
				}
			}
		}
		groups := []Group{cache.group(CacheGroup)}
		for name, s := range channels {
			if _, is := s[Column{"seq", true}]; is {
				groups = append(groups, s.group(Channel(name)))
			}
		}
		slices.SortFunc(groups, func(a, b Group) int { return strings.Compare(a.Name, b.Name) })
		return groups, nil
	}
}

// sums are the values of a group by column.
type sums map[Column]float64

// add adds the value of a metric to the columns that it is of; ok is that there are any.
func (s sums) add(picks []pick, metric string, labels map[string]string, v float64) (ok bool) {
	for _, p := range picks {
		if prefix+p.metric != metric || p.only[0] != "" && labels[p.only[0]] != p.only[1] {
			continue
		}
		if v < 0 { // how a gauge says that it cannot be read
			v = math.NaN()
		}
		s[Column{p.column + labels[p.by], p.gauge}] += v
		ok = true
	}
	return ok
}

func (s sums) group(name string) Group {
	g := Group{Name: name}
	for c, v := range s {
		g.Values = append(g.Values, Value{c, v})
	}
	slices.SortFunc(g.Values, func(a, b Value) int { return strings.Compare(a.Name, b.Name) })
	return g
}
