package policy_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/rollout/policy"
)

// example is the one of the documentation.
const example = `{"rollout": {
   "waves": [{"name": "canary", "select": "canary=true", "max": 1, "bake": "10m", "checks": ["error-rate"]},
             {"select": "site=fra", "max": "25%", "approve": true},
             {"max": "100%"}],
   "max_concurrency": "25%", "max_errors": "5%", "success_threshold": "95%", "bake": "2m",
   "attempt_timeout": "30m", "offline_after": "10m", "timeout": "6h",
   "after": [{"first": "role=db", "then": "role=app", "if_offline": "wait"}],
   "on_failure": "halt", "on_supersede": "replace", "prefetch": true, "quarantine_after": null,
   "rollback": {"bake": "0s", "max_concurrency": "100%"}},
 "requires": {"channel": "staging", "baked": "24h"}}`

func TestParse(t *testing.T) {
	p, err := policy.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	r := p.Rollout
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"bake of the canary", r.Baking(0, false), 10 * time.Minute},
		{"bake of a wave that says none", r.Baking(1, false), 2 * time.Minute},
		{"bake of a rollback", r.Baking(0, true), time.Duration(0)},
		{"a share rounds up", r.Concurrency(10, false), 3},
		{"of a rollback", r.Concurrency(10, true), 10},
		{"errors", r.Errors(21), 2},
		{"enough", r.Enough(21, 1), 20},
		{"enough of none", r.Enough(0, 0), 1},
		{"quarantine after one more than errors", r.Quarantining(21), 3},
		{"offline", r.Offline(), 10 * time.Minute},
		{"prefetch", r.Prefetches(), true},
		{"requires", p.Requires.Baked.String(), "1d"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := policy.Parse(text)
	if err != nil {
		t.Fatalf("what it prints it does not read: %v\n%s", err, text)
	}
	if second, _ := json.Marshal(again); string(second) != string(text) {
		t.Errorf("printed twice it is\n%s\nand\n%s", text, second)
	}
}

// What a policy leaves out has defaults that are safe.
func TestDefaults(t *testing.T) {
	p, err := policy.Parse([]byte(`{"rollout": {}}`))
	if err != nil {
		t.Fatal(err)
	}
	r := p.Rollout
	if len(r.All()) != 1 || r.Errors(1000) != 0 || r.Enough(7, 2) != 5 || r.Enough(1, 1) != 1 || r.Concurrency(7, false) != 7 || r.Failing() != policy.Halt || r.Superseding() != policy.Replace || !r.Prefetches() || r.Quarantining(1000) != 1 {
		t.Errorf("the defaults are %+v", r)
	}
}

// Each mistake is said in words that name it and what to do.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ text, words string }{
		{`{"rollout": {"max_concurency": 3}}`, "max_concurency"},
		{`{"roll_out": {}}`, "roll_out"},
		{`{"rollout": {}} {}`, "something follows"},
		{`{"rollout": {"waves": [{"max": "100%"}, {"max": "100%"}]}}`, "nobody is left for wave 2"},
		{`{"rollout": {"waves": [{}, {"select": "a=b"}, {}]}}`, "wave 1 takes all hosts"},
		{`{"rollout": {"waves": [{"max": 1}]}}`, `end with {"max": "100%"}`},
		{`{"rollout": {"waves": [{"name": "fra", "select": "site=fra"}]}}`, "the last wave, fra, does not take"},
		{`{"rollout": {"waves": [{"max": 0}, {}]}}`, "without hosts never passes"},
		{`{"rollout": {"waves": [{"max": "101%"}, {}]}}`, "neither a number"},
		{`{"rollout": {"waves": [{"max": -1}, {}]}}`, "neither a number"},
		{`{"rollout": {"waves": [{"max": 1.5}, {}]}}`, "neither a number"},
		{`{"rollout": {"waves": [{"select": "a==b", "max": 1}, {}]}}`, "label=value"},
		{`{"rollout": {"waves": [{"select": "=b", "max": 1}, {}]}}`, "label=value"},
		{`{"rollout": {"waves": [{"checks": ["a", "a"]}]}}`, "there twice"},
		{`{"rollout": {"bake": 600}}`, "a time is written like"},
		{`{"rollout": {"bake": "-1s"}}`, "a time is written like"},
		{`{"rollout": {"attempt_timeout": "1s"}}`, "not from 1m to 30d"},
		{`{"rollout": {"timeout": "90d"}}`, "not from 1m to 30d"},
		{`{"rollout": {"max_concurrency": 0}}`, "no host could ever begin"},
		{`{"rollout": {"rollback": {"max_concurrency": "0%"}}}`, "no host could ever begin"},
		{`{"rollout": {"success_threshold": 3}}`, "is no share"},
		{`{"rollout": {"on_failure": "explode"}}`, "none of halt, revert_wave, revert_all"},
		{`{"rollout": {"on_supersede": "ignore"}}`, "none of replace, queue, reject"},
		{`{"rollout": {"quarantine_after": -1}}`, "quarantine_after -1"},
		{`{"requires": {"baked": "1h"}}`, "names no channel"},
		{`{"rollout": {"after": [{"first": "role=db", "then": ""}]}}`, "have to pick some hosts"},
		{`{"rollout": {"after": [{"first": "role=db", "then": "role=app", "if_offline": "cry"}]}}`, "none of wait, skip"},
		{`{"rollout": {"after": [{"first": "role=db", "then": "site=fra"}]}}`, `"site=fra,role!=db"`},
		{`{"rollout": {"after": [{"first": "role=db", "then": "role=app"}, {"first": "role=app", "then": "role=db"}]}}`, "after is a circle"},
		{`{"rollout": {"after": [{"first": "r=a", "then": "r=b"}, {"first": "r=b", "then": "r=c"}, {"first": "r=c", "then": "r=a"}]}}`, `circle: "r=a" before "r=b", "r=b" before "r=c"`},
	} {
		_, err := policy.Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s\n\t%v\n\twant words with %q", c.text, err, c.words)
		}
	}
}

func TestNoCircle(t *testing.T) {
	for _, text := range []string{
		`[{"first": "r=a", "then": "r=b"}, {"first": "r=b", "then": "r=c"}, {"first": "r=a", "then": "r=c"}]`,
		`[{"first": "role=db", "then": "site=fra,role!=db"}]`,
		`[{"first": "router", "then": "!router"}]`,
	} {
		if _, err := policy.Parse([]byte(`{"rollout": {"after": ` + text + `}}`)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestNobody(t *testing.T) {
	p, err := policy.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(p.Nobody([]map[string]string{{"canary": "true", "role": "db"}, {"role": "web"}}), "\n")
	want := `wave 2: no host is picked by "site=fra" (no host has the label site)
after 1, then: no host is picked by "role=app" (role is db, web)`
	if words != want {
		t.Errorf("it says\n%s\nwant\n%s", words, want)
	}
}
