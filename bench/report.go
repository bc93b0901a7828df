//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// A report is the measured part of PERFORMANCE.md.
type report struct {
	facts []string // what was measured on, one sentence each
	names [2]string
	rows  []row
}

// writeTo prints the report as markdown.
func (r *report) writeTo(w io.Writer) {
	for _, fact := range r.facts {
		fmt.Fprintf(w, "* %s\n", fact)
	}
	fmt.Fprintf(w, "\n| what | %s | %s | ratio | CPU %s | CPU %s | ratio | target | |\n", r.names[0], r.names[1], r.names[0], r.names[1])
	fmt.Fprintln(w, "|---|--:|--:|--:|--:|--:|--:|---|---|")
	for _, row := range r.rows {
		ratio := row.ratio.String()
		if ratio == "" {
			ratio = row.remark
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", row.what, row.values[0], row.values[1], ratio,
			row.cpus[0], row.cpus[1], row.cpuRatio, row.target(), row.verdict())
	}
	fmt.Fprintln(w, "\nEvery number is the median of its rounds. A ratio is the median of the ratios of the rounds, with their quartiles; servers take turns within a round.\n"+
		"CPU is the time of the server's processes alone, in user and kernel mode; it is steadier than the wall where two cores also carry the load generator.")
}

// The generated part of PERFORMANCE.md stands between these lines; what people
// write goes below.
const (
	beginMark = "<!-- measured: begin. Written by go run ./bench -write; write below the end mark instead. -->"
	endMark   = "<!-- measured: end -->"
)

// update replaces the measured part of the file and leaves the rest as it is.
func (r *report) update(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var b strings.Builder
	r.writeTo(&b)
	page, err := replaceMeasured(string(text), b.String())
	if err != nil {
		return fmt.Errorf("update %s: %w", name, err)
	}
	return os.WriteFile(name, []byte(page), 0o644)
}

func replaceMeasured(page, measured string) (string, error) {
	before, rest, ok1 := strings.Cut(page, beginMark+"\n")
	_, after, ok2 := strings.Cut(rest, endMark+"\n")
	if !ok1 || !ok2 {
		return "", fmt.Errorf("it lacks the lines %q and %q", beginMark, endMark)
	}
	return before + beginMark + "\n\n" + measured + "\n" + endMark + "\n" + after, nil
}
