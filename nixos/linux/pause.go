package linux

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
)

func pauseFile(stateDir string) string { return filepath.Join(stateDir, "pause.json") }

// ReadPause is what a person on the host has said, nil if nothing that still
// holds.
func ReadPause(stateDir string, now time.Time) (*api.Hold, error) {
	text, err := os.ReadFile(pauseFile(stateDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := new(api.Hold)
	if err := json.Unmarshal(text, p); err != nil {
		return &api.Hold{Reason: "pause.json cannot be read: " + err.Error(), By: "?"}, nil
	}
	if p.Until != nil && !now.Before(*p.Until) {
		return nil, nil
	}
	return p, nil
}

// WritePause pauses the host, or with nil lets it go on.
func WritePause(stateDir string, p *api.Hold) error {
	if p == nil {
		err := os.Remove(pauseFile(stateDir))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(pauseFile(stateDir), append(text, '\n'), 0o644)
}
