package fleet

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// A story is one line of the table that [Main] prints.
type story struct {
	name    string
	outcome string
	took    time.Duration
	notes   []string
}

var stories struct {
	sync.Mutex
	all []*story
}

// A Story is a subtest that stands in the table.
type Story struct {
	*testing.T
	*story
}

// Run runs a story as a subtest of t and puts it into the table: what it is called, how it ended,
// how long it took.
func Run(t *testing.T, name string, tell func(s *Story)) bool {
	t.Helper()
	return t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
		s := &story{name: name}
		stories.Lock()
		stories.all = append(stories.all, s)
		stories.Unlock()
		begin := time.Now()
		defer func() { // also after a FailNow and in a panic
			stories.Lock()
			defer stories.Unlock()
			s.took, s.outcome = time.Since(begin), "ok"
			switch {
			case t.Failed():
				s.outcome = "FAILED"
			case t.Skipped():
				s.outcome = "skipped"
			}
		}()
		tell(&Story{T: t, story: s})
	})
}

// Took puts a measured time into the story's line.
func (s *Story) Took(what string, d time.Duration) {
	s.Note("%s %.2f s", what, d.Seconds())
}

// Note puts words into the story's line.
func (s *Story) Note(format string, args ...any) {
	stories.Lock()
	defer stories.Unlock()
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// table prints stories; it is empty without one.
func table(all []*story) string {
	if len(all) == 0 {
		return ""
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "story\toutcome\tseconds\t\n")
	for _, s := range all {
		outcome := s.outcome
		if outcome == "" {
			outcome = "no end"
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\n", s.name, outcome, s.took.Seconds(), strings.Join(s.notes, ", "))
	}
	_ = w.Flush()
	lines := strings.Split(b.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n")
}

// Main is the TestMain of packages whose tests boot fleets: it takes away what a killed run left,
// runs the tests, prints the table of stories and fails when a fleet was not closed.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv("NARWHARF_FLEET") == "1" && os.Getuid() == 0 {
		if left, err := Clean(false); err != nil {
			fmt.Fprintf(os.Stderr, "fleet: what an earlier run left: %v\n", err)
		} else if len(left) > 0 {
			fmt.Fprintf(os.Stderr, "fleet: took away what an earlier run left: %s\n", strings.Join(left, " "))
		}
	}
	code := m.Run()
	open.Range(func(key, value any) bool {
		fmt.Fprintf(os.Stderr, "fleet: %v did not close its fleet\n", value)
		if s, ok := key.(*state); ok {
			_ = s.space.close()
		}
		code = 1
		return true
	})
	stories.Lock()
	defer stories.Unlock()
	if text := table(stories.all); text != "" {
		fmt.Print("\n" + text + "\n")
		if name := os.Getenv("NARWHARF_STORIES"); name != "" {
			if err := appendFile(name, text+"\n"); err != nil {
				fmt.Fprintf(os.Stderr, "fleet: write the table: %v\n", err)
				code = 1
			}
		}
	}
	return code
}

// appendFile adds to a file: more than one package may have stories.
func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
