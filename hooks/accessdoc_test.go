package hooks

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The table of docs/access.md has the calls about roll-outs, each with the right that it needs.
func TestScopesOfRolloutsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| [^|]*\\| (`[A-Z]+ /[^|]*`) \\| `([^`]*)` \\|$").FindAllStringSubmatch(string(text), -1) {
		for call := range strings.SplitSeq(strings.Trim(m[1], "`"), "` `") {
			rows[call] = m[2]
		}
	}
	about := regexp.MustCompile(`/(plan|policy|rollouts|budgets|holds|freeze|quarantine|checks|alarms|notify|reboots|fleetlock)\b`)
	for _, r := range Routes() {
		if !about.MatchString(r.Pattern) {
			continue
		}
		call := r.Method + " " + regexp.MustCompile(`:(\w+)`).ReplaceAllString(strings.TrimPrefix(r.Pattern, "/api/v1"), "{$1}")
		if scope, ok := rows[call]; !ok || scope != r.Needs.String() {
			t.Errorf("%s needs %q, and docs/access.md says %q", call, r.Needs.String(), scope)
		}
		delete(rows, call)
	}
	for call := range rows {
		t.Errorf("docs/access.md has %s, which is no call about roll-outs", call)
	}
}
