package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/rollout/policy"
)

// What the document says of a roll-out's rules is what the server takes and refuses: numbers,
// times, selectors and words.
func TestOpenAPIHasTheRules(t *testing.T) {
	schemas := readAPIDocument(t).Components.Schemas
	amount := regexp.MustCompile(schemas["Amount"].OneOf[1].Pattern)
	duration, selector := regexp.MustCompile(schemas["Duration"].Pattern), regexp.MustCompile(schemas["Selector"].Pattern)
	for _, c := range []struct {
		name    string
		grammar *regexp.Regexp
		read    func(text string) error
		texts   string // with a space between
	}{
		{"Amount", amount, func(text string) error { _, err := policy.ParseAmount(text); return err },
			"0 1 25 10000000 0% 1% 25% 12.5% 12.25% 99.99% 100% 1.% .5% 1.234% % 101% 1000% -1 -1% x 25%% 2,5%"},
		{"Duration", duration, func(text string) error { return json.Unmarshal([]byte(fmt.Sprintf("%q", text)), new(policy.Duration)) },
			"0 0s 90s 10m 1h30m 1.5h .5h 7d 24h 300ms 3650d 1 10 m d 7w 1d2h -1s 1h30 10M s5"},
		{"Selector", selector, func(text string) error { _, err := policy.ParseSelector(text); return err },
			"site=fra site!=fra canary !old site=fra,role!=db,canary,!old rack=a/b:1 site= a.b/c-d_e=x =x !=x -a a=b=c a,,b a=b!c !"},
	} {
		for _, text := range strings.Fields(c.texts) {
			if err := c.read(text); c.grammar.MatchString(text) != (err == nil) {
				t.Errorf("%s: the document takes %q: %v, the server says %v", c.name, text, err != nil, err)
			}
		}
	}
	for _, c := range []struct {
		enum []string
		set  func(r *policy.Rollout, word string)
	}{
		{schemas["RolloutPolicy"].Properties["on_failure"].Enum, func(r *policy.Rollout, word string) { r.OnFailure = word }},
		{schemas["RolloutPolicy"].Properties["on_supersede"].Enum, func(r *policy.Rollout, word string) { r.OnSupersede = word }},
		{schemas["RolloutPolicyAfter"].Properties["if_offline"].Enum, func(r *policy.Rollout, word string) {
			r.After = []policy.After{{First: policy.MustSelect("db"), Then: policy.MustSelect("!db"), IfOffline: word}}
		}},
	} {
		for _, word := range []string{policy.Halt, policy.RevertWave, policy.RevertAll, policy.Replace, policy.Queue, policy.Reject, policy.Wait, policy.Skip, "never"} {
			r := new(policy.Rollout)
			c.set(r, word)
			if err := r.Check(); (err == nil) != slices.Contains(c.enum, word) {
				t.Errorf("%q is %v in the document, and the server says %v", word, c.enum, err)
			}
		}
	}
	for n := range 100 {
		r := policy.Rollout{Waves: slices.Repeat([]policy.Wave{{Max: policy.Number(1)}}, n)}
		r.Waves = append(r.Waves, policy.Wave{})
		if err := r.Check(); (err == nil) != (n+1 <= schemas["RolloutPolicy"].Properties["waves"].MaxItems) {
			t.Errorf("%d waves: %v", n+1, err)
		}
		r = policy.Rollout{}
		for i := range n {
			r.After = append(r.After, policy.After{First: policy.MustSelect(fmt.Sprint("a=", i)), Then: policy.MustSelect(fmt.Sprint("a=", i+1))})
		}
		if err := r.Check(); (err == nil) != (n <= schemas["RolloutPolicy"].Properties["after"].MaxItems) {
			t.Errorf("%d rules of after: %v", n, err)
		}
	}
}
