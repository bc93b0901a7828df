package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A server that has answered everything shows the metrics of docs/metrics.md,
// with the type and the labels that stand there, and no others.
func TestMetricsAreDocumented(t *testing.T) {
	a := newAnswers(t)
	a.exercise()
	_, text := a.want(200, ask{route: "metrics", method: "GET", path: "/metrics"})
	shown := make(map[string]string) // name -> type and labels
	kinds := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (narwharf_\w+) (\w+)$`).FindAllStringSubmatch(text, -1) {
		kinds[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?m)^(narwharf_\w+)(?:\{(.*)\})? \S+$`).FindAllStringSubmatch(text, -1) {
		var labels []string
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[2], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		shown[m[1]] = fmt.Sprintf("%s %q", kinds[m[1]], labels)
	}

	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n## The cache\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(narwharf_\\w+)` \\| (\\w+) \\| ([^|]*) \\| \\S").FindAllStringSubmatch(section, -1) {
		labels := regexp.MustCompile(`\w+`).FindAllString(m[3], -1)
		documented[m[1]] = fmt.Sprintf("%s %q", m[2], labels)
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if shown[name] != documented[name] {
			t.Errorf("%s: docs/metrics.md has %s, the server %s", name, documented[name], shown[name])
		}
	}
	for name, what := range shown {
		if documented[name] == "" {
			t.Errorf("docs/metrics.md lacks %s (%s)", name, what)
		}
	}
}
