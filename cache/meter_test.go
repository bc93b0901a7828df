package cache

import (
	"fmt"
	"strings"
	"testing"
)

func TestMetrics(t *testing.T) {
	w, have := stocked(t)
	refused := w.must(w.put(examples["nar"], []byte("junk")), 422)
	w.must(w.head(have["nar"]), 200)
	w.must(w.get(have["nar"]), 200)
	w.must(w.do("BREW", "/", nil), 405)
	text := w.must(w.get("/metrics"), 200).body
	for _, want := range []string{
		"narwharf_cache_paths 1\n", "narwharf_cache_nar_files 1\n",
		`narwharf_http_requests_total{method="GET",route="nar",status="200"} 1` + "\n",
		`narwharf_http_requests_total{method="HEAD",route="nar",status="200"} 1` + "\n",
		`narwharf_http_requests_total{method="other",route="landing",status="405"} 1` + "\n",
		`narwharf_upload_refusals_total{kind="nar",route="nar"} 1` + "\n",
		`narwharf_verify_failures_total{kind="nar"} 1` + "\n",
		`narwharf_uploads_total{result="ok",route="narinfo"} 1` + "\n",
		`narwharf_uploads_total{result="refused",route="nar"} 1` + "\n",
		"narwharf_uploads_in_flight 0\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// The file, once, and the refusal: HEAD sends nothing.
	size := w.u.Counts().NarBytes
	want := fmt.Sprintf("narwharf_http_sent_bytes_total{route=\"nar\",source=\"uploaded\"} %d\n", size+int64(len(refused.body)))
	if !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}
