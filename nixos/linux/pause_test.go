package linux

import (
	"errors"
	"testing"
	"time"

	"narwharf/hooks/api"
)

func TestPauseFile(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	later := now.Add(time.Hour)
	if err := WritePause(dir, &api.Hold{Reason: "x", By: "kim", Until: &later}); err != nil {
		t.Fatal(err)
	}
	if p, err := ReadPause(dir, now); err != nil || p == nil || p.Reason != "x" {
		t.Error(p, err)
	}
	if p, err := ReadPause(dir, later); err != nil || p != nil {
		t.Error(p, err)
	}
	if err := errors.Join(WritePause(dir, nil), WritePause(dir, nil)); err != nil {
		t.Error(err)
	}
	if p, err := ReadPause(dir, now); err != nil || p != nil {
		t.Error(p, err)
	}
}
