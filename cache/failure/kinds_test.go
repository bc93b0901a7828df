package failure

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"narwharf/cache/refusal"
)

// Each kind that package refusal names has one row.
func TestKindsHaveRows(t *testing.T) {
	text, err := os.ReadFile("../refusal/refusal.go")
	if err != nil {
		t.Fatal(err)
	}
	var named, rows []string
	for _, m := range regexp.MustCompile(`Kind = "([a-z-]+)"`).FindAllStringSubmatch(string(text), -1) {
		named = append(named, m[1])
	}
	for _, row := range kinds {
		rows = append(rows, string(row.kind))
	}
	slices.Sort(named)
	if !slices.Equal(named, rows) { // the table is in order, too
		t.Errorf("package refusal has the kinds\n%q\nand the table\n%q", named, rows)
	}
}

// The rows of docs/http.md are those of the table.
func TestDocumentHasTheKinds(t *testing.T) {
	text, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "| kind | status | words | means |\n|---|---|---|---|\n")
	if !ok {
		t.Fatal("docs/http.md has no table of kinds")
	}
	document, _, _ := strings.Cut(after, "\n\n")
	lines := strings.Split(document, "\n")
	for i, row := range kinds {
		want := strings.Replace(fmt.Sprintf("| `%s` | %d | `%s` | %s |", row.kind, row.status, row.words, row.means), "|  |", "| |", 1)
		if i >= len(lines) || lines[i] != want {
			t.Errorf("docs/http.md lacks this line at its place:\n%s", want)
		}
	}
	if len(lines) > len(kinds) {
		t.Errorf("docs/http.md has %d rows, the table %d", len(lines), len(kinds))
	}
}

// The answers in docs/openapi.json name the kinds with their status, in x-kinds.
func TestOpenAPIHasTheKinds(t *testing.T) {
	text, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Responses map[string]struct {
				Kinds []string `json:"x-kinds"`
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for status, name := range map[int]string{
		400: "Broken", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 411: "LengthRequired", 412: "PreconditionFailed", 413: "TooLarge",
		415: "UnsupportedMediaType", 416: "RangeNotSatisfiable", 422: "Unprocessable", 500: "Internal", 502: "BadGateway", 503: "Unavailable",
	} {
		var want []string
		for _, row := range kinds {
			// These two are said of a promote, which is hooks' to answer.
			if row.status == status && row.kind != refusal.Gone && row.kind != refusal.LocalDiffers {
				want = append(want, string(row.kind))
			}
		}
		if got := doc.Components.Responses[name].Kinds; !slices.Equal(got, want) {
			t.Errorf("docs/openapi.json: %s has the x-kinds %q, want %q", name, got, want)
		}
	}
}
