package api

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestKinds(t *testing.T) {
	text, err := os.ReadFile("../../docs/channels.md")
	if err != nil {
		t.Fatal(err)
	}
	want := "| kind | status | it means | what to do |\n|---|---|---|---|\n"
	seen := make(map[Kind]bool)
	for _, k := range Kinds {
		if seen[k.Kind] || k.Status < 400 || k.Means == "" || k.Do == "" || k.Kind.Status() != k.Status {
			t.Errorf("%+v is there twice, or says too little", k)
		}
		seen[k.Kind] = true
		want += fmt.Sprintf("| `%s` | %d | %s | %s |\n", k.Kind, k.Status, k.Means, k.Do)
	}
	if !strings.Contains(string(text), want+"\n") {
		t.Errorf("docs/channels.md has another table of kinds than\n%s", want)
	}
	if Kind("new").Status() != 500 {
		t.Error("a kind that nobody knows is no internal error")
	}
}
