package live

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"narwharf/hooks/dashboard/plot"
)

// Snapshot is what of a view is replaced while somebody looks at it.
type Snapshot struct {
	Fragments map[string]string      // HTML of elements, by their ids
	Cells     map[string]*plot.Cells // drawings, by their ids
	Bad       int                    // how much is wrong: the number in the tab's title
	Topics    []string               // after which it may be another
	Tab       string                 // the tab's title, without what is the same for all
	Shape     string                 // which elements there are: if it is another the browser loads the page again

	id   string
	keys map[string]string // of Cells
}

// ID tells snapshots of a view apart.
func (s *Snapshot) ID() string {
	if s.id != "" {
		return s.id
	}
	sum := sha256.New()
	for _, id := range slices.Sorted(maps.Keys(s.Fragments)) {
		_, _ = fmt.Fprintf(sum, "%s\x00%s\x00", id, s.Fragments[id]) // never fails
	}
	s.keys = make(map[string]string, len(s.Cells))
	for _, id := range slices.Sorted(maps.Keys(s.Cells)) {
		s.keys[id] = s.Cells[id].Key()
		_, _ = fmt.Fprintf(sum, "%s\x00%s\x00%s\x00", id, s.keys[id], s.Cells[id].States)
	}
	_, _ = fmt.Fprintf(sum, "%d %s %s", s.Bad, s.Shape, s.Tab)
	s.id = base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:12])
	return s.id
}

// update is an event's data.
type update struct {
	Fragments map[string]string `json:"fragments,omitempty"`
	Cells     map[string]string `json:"cells,omitempty"` // plot.Runs
	Bad       int               `json:"bad"`
	Tab       string            `json:"tab"`
	Shape     string            `json:"shape"`
}

// since is the event that leads from one snapshot to the next; from nil it is all of it.
func (s *Snapshot) since(was *Snapshot) []byte {
	u := update{Fragments: make(map[string]string), Cells: make(map[string]string), Bad: s.Bad, Shape: s.Shape, Tab: s.Tab}
	for id, text := range s.Fragments {
		if was == nil || was.Fragments[id] != text {
			u.Fragments[id] = text
		}
	}
	for id, cells := range s.Cells {
		if was == nil || was.keys[id] != s.keys[id] {
			u.Fragments[id] = string(cells.SVG())
		} else if runs := plot.Runs(was.Cells[id].States, cells.States); runs != "" {
			u.Cells[id] = runs
		}
	}
	text, err := json.Marshal(u)
	if err != nil {
		panic(err) // strings always encode
	}
	return fmt.Appendf(nil, "id: %s\ndata: %s\n\n", s.ID(), text)
}
