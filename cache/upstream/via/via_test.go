package via_test

import (
	"slices"
	"testing"

	"narwharf/cache/upstream/via"
)

func TestVia(t *testing.T) {
	values := []string{"1.1 proxy, 1.1 narwharf-aa (a site)", "1.1 varnish,1.1 narwharf-bb"}
	entries := via.Entries(values)
	if !slices.Equal(entries, []string{"narwharf-aa", "narwharf-bb"}) || via.Last(values) != "bb" {
		t.Errorf("%q, last %q", entries, via.Last(values))
	}
	if !via.Has(entries, "aa") || via.Has(entries, "cc") {
		t.Error("aa is there, cc is not")
	}
	text := via.Text(entries, "cc")
	if text != "1.1 narwharf-aa, 1.1 narwharf-bb, 1.1 narwharf-cc" || !slices.Equal(via.Entries([]string{text}), append(entries, "narwharf-cc")) {
		t.Error(text)
	}
	if e := via.Entries([]string{text + "," + text}); len(e) != via.MaxHops+1 {
		t.Errorf("%q", e)
	}
	if via.Last(nil) != "" || via.Entries([]string{"", "narwharf-aa"}) != nil {
		t.Error("something in nothing")
	}
}
