package narwharf_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityNamesTests: each test that docs/security.md names is one.
func TestSecurityNamesTests(t *testing.T) {
	doc, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range goFiles(t) {
		if strings.HasSuffix(name, "_test.go") {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
	}
	for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9]+)").FindAllSubmatch(doc, -1) {
		if !strings.Contains(all.String(), "func "+string(m[1])+"(") {
			t.Errorf("docs/security.md names %s, which is no test", m[1])
		}
	}
}
