package hooks

import (
	"slices"
	"testing"
)

// shown are the series of a metric, by the value of their first label.
func (w *world) shown(name string) (labels []string) {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				labels = append(labels, m.GetLabel()[0].GetValue())
			}
		}
	}
	return labels
}

// TestHostMetrics: hosts are counted, and shown by their names only where that is wished.
func TestHostMetrics(t *testing.T) {
	w := newWorld(t)
	w.machine("web-1", "a", "boot-a").taken()
	if got := w.shown("narwharf_host_last_seen_seconds"); got != nil {
		t.Errorf("hosts are shown: %q", got)
	}
	if got := w.shown("narwharf_hosts"); !slices.Equal(got, []string{"web"}) {
		t.Errorf("they are counted for %q", got)
	}
	w.hostMetrics = true
	w.restart()
	if got := w.shown("narwharf_host_last_seen_seconds"); !slices.Equal(got, []string{"web-1"}) {
		t.Errorf("hosts are %q", got)
	}
}
