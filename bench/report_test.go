//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRowVerdict(t *testing.T) {
	samples := func(values ...float64) (out []sample) {
		for _, v := range values {
			out = append(out, sample{value: v, cpu: 1})
		}
		return out
	}
	nginx := samples(100, 100, 100)
	for _, c := range []struct {
		a       []sample
		atLeast float64
		want    string
	}{
		{samples(95, 99, 94), 0.95, "pass"},
		{samples(94, 99, 94), 0.95, "**missed**"},
		{samples(1, 1, 1), 0, ""},
	} {
		r := newRow("x", "%.0f", c.a, nginx, byValue)
		r.atLeast = c.atLeast
		if got := r.verdict(); got != c.want {
			t.Errorf("%v of at least %v: %q, want %q", r.ratio, c.atLeast, got, c.want)
		}
	}
	if r := newRow("x", "%.0f", nginx, nil, byValue); r.values != [2]string{"100", ""} || r.ratio.String() != "" {
		t.Errorf("a row without a second server: %+v", r)
	}
	goal := row{goal: "< 64 MiB", missed: true}
	if goal.verdict() != "**missed**" || goal.target() != "< 64 MiB" {
		t.Errorf("a missed goal: %q, %q", goal.verdict(), goal.target())
	}
}

func TestUpdateKeepsWhatPeopleWrote(t *testing.T) {
	name := filepath.Join(t.TempDir(), "PERFORMANCE.md")
	r := &report{facts: []string{"first machine"}, names: [2]string{"Narwharf", "nginx"}, rows: []row{{what: "first row"}}}
	empty := "# Performance\n\nIntroduction.\n\n" + beginMark + "\n" + endMark + "\n\n## What was tried, and what is left\n\nWe tried this.\n"
	if err := os.WriteFile(name, []byte(empty), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.update(name); err != nil {
		t.Fatal(err)
	}
	if page, _ := os.ReadFile(name); !strings.Contains(string(page), "| first row |") {
		t.Fatalf("the page lacks the first measurement:\n%s", page)
	}
	r.facts, r.rows = []string{"second machine"}, []row{{what: "second row"}}
	if err := r.update(name); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Introduction.", "second machine", "| second row |", "## What was tried, and what is left\n\nWe tried this.\n"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(string(page), "first") {
		t.Error("the page still has the first measurement")
	}
}

func TestUpdateNeedsFile(t *testing.T) {
	if err := new(report).update(filepath.Join(t.TempDir(), "none.md")); !os.IsNotExist(err) {
		t.Errorf("error %v, want that the file does not exist", err)
	}
}

func TestUpdateRefusesForeignFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "PERFORMANCE.md")
	if err := os.WriteFile(name, []byte("# Notes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := new(report).update(name); err == nil || !strings.Contains(err.Error(), "lacks the lines") {
		t.Errorf("error %v, want one about the missing marks", err)
	}
	if text, _ := os.ReadFile(name); string(text) != "# Notes\n" {
		t.Errorf("the file was changed to %q", text)
	}
}
