package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"narwharf/cache/state/durable"
)

// A File is journal.json in a state directory. After a crash it has the text
// that was saved last or the one before it, whole.
type File struct{ StateDir string }

func (f File) name() string { return filepath.Join(f.StateDir, "journal.json") }

// Load returns nil text if there is none yet.
func (f File) Load() ([]byte, error) {
	text, err := os.ReadFile(f.name())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// Save is durable when it returns.
func (f File) Save(text []byte) error {
	if err := durable.WriteFile(f.name(), text, 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Read reads the journal in a state directory, for people who ask.
func Read(stateDir string) (*Journal, error) {
	text, err := File{stateDir}.Load()
	if err != nil {
		return nil, err
	}
	return Parse(text)
}
