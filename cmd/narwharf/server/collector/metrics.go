package collector

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/blob"
)

var (
	successDesc  = prometheus.NewDesc("narwharf_gc_last_success_seconds", "Unix time at which a collection last ended without an error; 0: none did.", nil, nil)
	durationDesc = prometheus.NewDesc("narwharf_gc_last_duration_seconds", "How long the last collection took.", nil, nil)
	failedDesc   = prometheus.NewDesc("narwharf_gc_last_failed", "1 if the last collection ended early, else 0.", nil, nil)
	goneDesc     = prometheus.NewDesc("narwharf_gc_last_collected_paths", "Paths that the last collection deleted, by reason.", []string{"reason"}, nil)
	goneSizeDesc = prometheus.NewDesc("narwharf_gc_last_collected_bytes", "Bytes of the NAR files of these, by reason.", []string{"reason"}, nil)
	overDesc     = prometheus.NewDesc("narwharf_gc_over_bytes", "Bytes that the last collection left above the limits, since nothing more may go.", nil, nil)
	pathsDesc    = prometheus.NewDesc("narwharf_gc_paths", "Uploads at the last collection, by what kept them: root, grace, nothing.", []string{"kept"}, nil)
	sizeDesc     = prometheus.NewDesc("narwharf_gc_bytes", "Bytes of the NAR files of these.", []string{"kept"}, nil)
	maxDesc      = prometheus.NewDesc("narwharf_gc_max_size_bytes", "retention.max_size; 0: no bound.", nil, nil)
	freeDesc     = prometheus.NewDesc("narwharf_disk_free_bytes", "Bytes that uploads find free on the disk.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{successDesc, durationDesc, failedDesc, goneDesc, goneSizeDesc, overDesc, pathsDesc, sizeDesc, maxDesc, freeDesc} {
		ch <- d
	}
}

// Free is how many bytes uploads find free; known is false where files are not on a disk.
func (c *Collector) Free() (free int64, known bool, err error) {
	return blob.Free(c.cache.Uploads.Files)
}

// Metrics is a Collector for prometheus.
type Metrics struct{ *Collector }

// Collect implements prometheus.Collector.
func (m Metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(of *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, value, labels...)
	}
	if free, known, err := m.Free(); known && err == nil {
		gauge(freeDesc, float64(max(free, 0)))
	}
	gauge(maxDesc, float64(m.cache.Collector.MaxSize))
	r, err := m.cache.Collector.Last(context.Background())
	if err != nil || r == nil {
		gauge(successDesc, 0)
		return
	}
	success, failed := 0.0, 0.0
	if r.Success != nil {
		success = float64(r.Success.Unix())
	}
	if r.Error != "" {
		failed = 1
	}
	gauge(successDesc, success)
	gauge(failedDesc, failed)
	gauge(durationDesc, r.Ended.Sub(r.Began).Seconds())
	gauge(overDesc, float64(r.Over))
	for reason, sum := range r.Gone {
		gauge(goneDesc, float64(sum.Paths), string(reason))
		gauge(goneSizeDesc, float64(sum.Bytes), string(reason))
	}
	loose := r.Uploads
	loose.Paths, loose.Bytes = loose.Paths-r.Kept.Paths-r.Young.Paths, loose.Bytes-r.Kept.Bytes-r.Young.Bytes
	gauge(pathsDesc, float64(r.Kept.Paths), "root")
	gauge(pathsDesc, float64(r.Young.Paths), "grace")
	gauge(pathsDesc, float64(loose.Paths), "nothing")
	gauge(sizeDesc, float64(r.Kept.Bytes), "root")
	gauge(sizeDesc, float64(r.Young.Bytes), "grace")
	gauge(sizeDesc, float64(loose.Bytes), "nothing")
}
