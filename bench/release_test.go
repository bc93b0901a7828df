//go:build linux

package main

import (
	"encoding/json"
	"testing"

	"narwharf/hooks/api"
	"narwharf/signing"
)

func testPromoter(t *testing.T) *promoter {
	t.Helper()
	key, err := signing.GenerateKey("k-1")
	if err != nil {
		t.Fatal(err)
	}
	p := &promoter{key: key}
	for i := range p.systems {
		path, err := smallPath(t.TempDir(), "system-"+string(rune('0'+i)))
		if err != nil {
			t.Fatal(err)
		}
		p.systems[i] = signing.Entry{StorePath: path.info.Path.In(storeDir), Closure: signing.Digest{1}, System: "x86_64-linux", Action: signing.Auto}
	}
	return p
}

// TestNextChangesAll: each release has another system for every target.
func TestNextChangesAll(t *testing.T) {
	p := testPromoter(t)
	last := ""
	for seq := int64(1); seq <= 4; seq++ {
		r, err := p.next([]string{"h00001", "h00000"})
		if err != nil {
			t.Fatal(err)
		}
		var sent api.Promotion
		if err := json.Unmarshal(r.body, &sent); err != nil {
			t.Fatal(err)
		}
		head, entries, err := sent.Check()
		if err != nil || head.Seq != seq || len(entries) != 2 || entries[0].StorePath != r.system || entries[1].StorePath != r.system {
			t.Errorf("release %+v, %+v, %v", head, entries, err)
		}
		if r.system == last {
			t.Errorf("release %d has the system of the one before", seq)
		}
		last = r.system
	}
}
