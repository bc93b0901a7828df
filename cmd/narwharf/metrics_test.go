package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"narwharf/cache/blob/diskcache"
	"narwharf/cache/blob/s3"
	"narwharf/cache/blob/s3/location"
	"narwharf/cache/blob/s3/s3test"
	"narwharf/cache/local/compress"
	"narwharf/cache/retention"
	"narwharf/cache/state"
	"narwharf/cache/upload/scrub"
	"narwharf/cmd/narwharf/server/collector"
	"narwharf/cmd/narwharf/server/keypair"
	"narwharf/hooks/rollout/check"
)

// shownMetrics reads a page of metrics: the type and the labels of each.
func shownMetrics(page string) map[string]string {
	shown := make(map[string]string)
	kinds := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (narwharf_\w+) (\w+)$`).FindAllStringSubmatch(page, -1) {
		kinds[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?m)^(narwharf_\w+)(?:\{(.*)\})? \S+$`).FindAllStringSubmatch(page, -1) {
		name, labels := m[1], []string(nil)
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if base, cut := strings.CutSuffix(name, part); cut && kinds[base] == "histogram" {
				name = base
			}
		}
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[2], -1) {
			if kinds[name] != "histogram" || l[1] != "le" {
				labels = append(labels, l[1])
			}
		}
		slices.Sort(labels)
		shown[name] = fmt.Sprintf("%s %q", kinds[name], labels)
	}
	return shown
}

// compareMetrics holds a page of metrics against a section of docs/metrics.md.
func compareMetrics(t *testing.T, page, heading string) {
	t.Helper()
	shown := shownMetrics(page)
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(narwharf_\\w+)` \\| (\\w+) \\| ([^|]*) \\| \\S").FindAllStringSubmatch(section, -1) {
		labels := regexp.MustCompile(`\w+`).FindAllString(m[3], -1)
		documented[m[1]] = fmt.Sprintf("%s %q", m[2], labels)
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if shown[name] != documented[name] {
			t.Errorf("%s: docs/metrics.md has %s, the server %s", name, documented[name], shown[name])
		}
	}
	for name, what := range shown {
		if documented[name] == "" {
			t.Errorf("docs/metrics.md lacks %s (%s)", name, what)
		}
	}
}

// A server that has answered everything shows the metrics of docs/metrics.md,
// with the type and the labels that stand there, and no others.
func TestMetricsAreDocumented(t *testing.T) {
	a := newAnswers(t)
	a.exercise()
	_, page := a.want(200, ask{route: "metrics", method: "GET", path: "/metrics"})
	compareMetrics(t, page, "The cache")
}

// The same for what is read in the background.
func TestScrubMetricsAreDocumented(t *testing.T) {
	registry := prometheus.NewRegistry()
	scrub.New(scrub.Options{}).Register(registry)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	compareMetrics(t, w.Body.String(), "The background scrub")
}

// The same for packed copies of local paths.
func TestPackMetricsAreDocumented(t *testing.T) {
	registry := prometheus.NewRegistry()
	packed, err := compress.Open(compress.Options{Dir: t.TempDir(), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	compareMetrics(t, page.Body.String(), "The machine's own store")
}

// The same for collections.
func TestRetentionMetricsAreDocumented(t *testing.T) {
	a := newAnswers(t)
	err := a.dir.State.Update(t.Context(), nil, func(tx state.Tx) error {
		last := retention.Result{Gone: map[retention.Reason]retention.Sum{retention.Size: {Paths: 1, Bytes: 1}}}
		return state.PutJSON(tx, "cache/retention", "last", last)
	})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector.Metrics{Collector: collector.New(a.cache, nil)})
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	compareMetrics(t, page.Body.String(), "What is kept")
}

// The same for TLS.
func TestTLSMetricsAreDocumented(t *testing.T) {
	registry := prometheus.NewRegistry()
	(&keypair.Keeper{Source: new(keypair.Source)}).Register(registry)
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	compareMetrics(t, page.Body.String(), "TLS")
}

// The same for channels and hosts.
func TestChannelMetricsAreDocumented(t *testing.T) {
	s := newAPIServer(t)
	s.exercise()
	s.report(3)
	s.letReboot("web-2", 3)
	s.rollOut(4)
	s.report(4)
	checks, err := check.NewSet([]check.Spec{{Name: "smoke", Command: []string{"/bin/sh", "-c", "exit 0"}}})
	if err != nil {
		t.Fatal(err)
	}
	checks.Get("smoke").Ask(t.Context(), new(check.About))
	s.registry.MustRegister(checks)
	page := httptest.NewRecorder()
	promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	compareMetrics(t, page.Body.String(), "Channels")
}

// The same for files in a bucket.
func TestBucketMetricsAreDocumented(t *testing.T) {
	registry := prometheus.NewRegistry()
	_, endpoint := s3test.Start(t)
	where, err := location.Parse("s3://bucket?endpoint=" + endpoint)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	near, err := diskcache.Open(diskcache.Options{Dir: t.TempDir(), Log: log, Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	files, err := s3.New(s3.Options{Where: where, Credentials: credentials.NewStaticV4("key", "secret", ""), Cache: near, Log: log, Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if _, err := files.Stat("nix-cache-info"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	compareMetrics(t, page.Body.String(), "Files in a bucket")
}
