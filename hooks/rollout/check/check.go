// Package check asks, while a wave of a roll-out bakes, whether the service is still well.
//
// A check is a query of Prometheus with a bound, a URL that has to answer 2xx, or a
// command. It stands in the server's configuration, and a policy names it: so nobody who
// may write a policy can make the server fetch a URL or run a program.
//
// # Answers
//
// An answer is Yes, No or None. None is that nobody knows: it stops nothing while the bake
// lasts, and is asked again.
//
//   - Prometheus (its HTTP API, /api/v1/query): a scalar, or each series of a vector, has to
//     be within the bound. One that is not makes No, whatever the others are. An empty vector
//     and NaN are no data, which is None unless the check says otherwise. An answer with
//     warnings is of a part of the data and can make No, and no Yes. Whatever else comes, and
//     nothing, is None: that Prometheus is away says nothing of the service.
//   - A URL: 2xx in time is Yes, all else is No: a service that cannot be reached is not well.
//   - A command: exit status 0 is Yes, 75 (EX_TEMPFAIL of sysexits.h) is None, others are No.
//     One that cannot be started, or is killed, is None. It has a clean environment, and ends
//     at its timeout with all that it started.
//
// No redirect to another scheme or host is followed. What is read of an answer is bounded,
// and so are its words (MaxDetail).
package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/narinfo/clip"
)

// Bounds of what a Spec leaves out.
const (
	Interval = 30 * time.Second
	Timeout  = 10 * time.Second

	leastInterval = time.Second
	longest       = time.Hour
	maxFailures   = 100
	maxChecks     = 1000
)

// MaxDetail bounds the words of an answer, in bytes.
const MaxDetail = 500

// Spec is a section [[check]] of the server's configuration. Prometheus, URL or Command
// says of which kind it is.
type Spec struct {
	Name string

	Prometheus string // its URL, without /api/v1
	Query      string
	Bound      string // "< 0.01"
	NoData     string // Yes, No, or None, which "" is

	URL string

	Command []string // a program and its arguments

	TokenFile string // of Prometheus or the URL: a bearer token
	Interval  time.Duration
	Timeout   time.Duration
	Failures  int // how many No in a row count as one; 0: 1
}

// Said is what an answer says.
type Said string

// What can be said.
const (
	Yes  Said = "yes"
	No   Said = "no"
	None Said = "no answer"
)

// Answer is what a check says.
type Answer struct {
	Said   Said
	Detail string    // for people, one line of at most MaxDetail bytes
	Asked  time.Time // when
	Took   time.Duration
}

// About is of what a check is asked. Commands are told.
type About struct {
	Channel string
	Seq     int64
	Wave    int      // from 1; 0 outside of a bake
	Paths   []string // the systems of the release, each once
}

// asker is a kind of check.
type asker interface {
	ask(ctx context.Context, about *About) (Said, string)
}

// Check is one that can be asked. It is safe for concurrent use.
type Check struct {
	Spec
	asker asker
	told  *tally
}

var nameGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

// Name says what is wrong with the name of a check.
func Name(name string) error {
	if !nameGrammar.MatchString(name) {
		return fmt.Errorf("name %s is not 1 to 64 letters, digits and . _ -, the first a letter or digit", clip.Quote(name, 64))
	}
	return nil
}

// New says in words what is wrong with a Spec.
func New(s Spec) (*Check, error) {
	if err := Name(s.Name); err != nil {
		return nil, err
	}
	if s.Interval == 0 {
		s.Interval = Interval
	}
	if s.Timeout == 0 {
		s.Timeout = Timeout
	}
	s.Failures = max(s.Failures, 1)
	switch {
	case s.Interval < leastInterval || s.Interval > longest:
		return nil, fmt.Errorf("interval %s is not from %s to %s", s.Interval, leastInterval, longest)
	case s.Timeout < 0 || s.Timeout > longest:
		return nil, fmt.Errorf("timeout %s is longer than %s", s.Timeout, longest)
	case s.Failures > maxFailures:
		return nil, fmt.Errorf("failures %d is more than %d", s.Failures, maxFailures)
	}
	var kinds []string
	for name, is := range map[string]bool{"prometheus": s.Prometheus != "", "url": s.URL != "", "command": len(s.Command) > 0} {
		if is {
			kinds = append(kinds, name)
		}
	}
	slices.Sort(kinds)
	switch len(kinds) {
	case 0:
		return nil, errors.New("give one of prometheus (with query and bound), url, command")
	case 1:
	default:
		return nil, fmt.Errorf("it has %s: a check asks one of them, make it two checks", strings.Join(kinds, " and "))
	}
	if s.Prometheus == "" && (s.Query != "" || s.Bound != "" || s.NoData != "") {
		return nil, fmt.Errorf("query, bound and no_data are of prometheus, and this is a %s", kinds[0])
	}
	c := &Check{Spec: s, told: new(tally)}
	var err error
	switch kinds[0] {
	case "prometheus":
		c.asker, err = newPrometheus(&c.Spec)
	case "url":
		c.asker, err = newPage(&c.Spec)
	default:
		c.asker, err = newCommand(&c.Spec)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// parseURL checks a URL of a check.
func parseURL(key, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s is no URL: %s", key, clip.Quote(text, 200))
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%s %s is not like http://host:port/path", key, clip.Quote(text, 200))
	case u.User != nil:
		return nil, fmt.Errorf("%s has a user or password, which this file would show: put a bearer token into token_file", key)
	}
	u.Fragment = ""
	return u, nil
}

// Ask asks once, for as long as its timeout.
func (c *Check) Ask(ctx context.Context, about *About) Answer {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	said, detail := c.asker.ask(ctx, about)
	a := Answer{Said: said, Detail: clip.Line(detail, MaxDetail), Asked: asked, Took: time.Since(asked)}
	if !errors.Is(ctx.Err(), context.Canceled) { // else nobody wants to know any more
		c.told.add(&a)
	}
	return a
}

// token is what token_file has, "" without one.
func (s *Spec) token() (string, error) {
	if s.TokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Kind says what is asked, for people.
func (s *Spec) Kind() string {
	switch {
	case s.Prometheus != "":
		return "prometheus"
	case s.URL != "":
		return "url"
	}
	return "command"
}

// Asks says in a line what is asked. A command's arguments may be secrets and are left out.
func (s *Spec) Asks() string {
	switch {
	case s.Prometheus != "":
		return s.Query + " " + s.Bound
	case s.URL != "":
		return s.URL
	}
	return filepath.Base(s.Command[0])
}

// Set is the checks of a server. The nil Set has none. It is safe for concurrent use.
type Set struct {
	mu  sync.Mutex
	all map[string]*Check
}

// NewSet makes a set; the error names the check that is wrong.
func NewSet(specs []Spec) (*Set, error) {
	if len(specs) > maxChecks {
		return nil, fmt.Errorf("%d checks are more than %d", len(specs), maxChecks)
	}
	s := &Set{all: make(map[string]*Check)}
	for i := range specs {
		c, err := New(specs[i])
		switch {
		case err != nil:
			return nil, fmt.Errorf("check %s: %w", clip.Quote(specs[i].Name, 64), err)
		case s.all[c.Name] != nil:
			return nil, fmt.Errorf("check %q: another has that name", c.Name)
		}
		s.all[c.Name] = c
	}
	return s, nil
}

// Replace takes the checks of another set in place of its own. What those of the same names have
// said goes on to be counted.
func (s *Set) Replace(by *Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range by.all {
		if was := s.all[name]; was != nil {
			c.told = was.told
		}
	}
	s.all = by.all
}

// Get is the check of a name, nil if there is none.
func (s *Set) Get(name string) *Check {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[name]
}

// Names are all names, sorted.
func (s *Set) Names() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.all))
}

// Unknown is what is wrong with the names of checks that a policy has, nil if all are here.
func (s *Set) Unknown(names []string) error {
	for _, name := range names {
		if s.Get(name) != nil {
			continue
		}
		have := "it has none"
		if all := s.Names(); len(all) > 0 {
			have = "it has " + clip.Line(strings.Join(all, ", "), 300)
		}
		return fmt.Errorf("the check %s is not in this server's configuration: %s ([[check]] in its config.toml)", clip.Quote(name, 64), have)
	}
	return nil
}
