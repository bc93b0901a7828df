package narwharf_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// inCode returns what the first group of a pattern finds in the Go files below
// dir, tests left out; sorted, each once.
func inCode(t *testing.T, dir, pattern string) (found []string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for _, name := range goFiles(t) {
		if strings.HasPrefix(name, dir) && !strings.HasSuffix(name, "_test.go") {
			for _, m := range re.FindAllStringSubmatch(readFile(t, name), -1) {
				found = append(found, m[1])
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// inRows returns what stands in the first column of the tables of a document.
func inRows(t *testing.T, name, pattern string) (found []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?m)^\\| `("+pattern+")` \\|").FindAllStringSubmatch(readFile(t, name), -1) {
		found = append(found, m[1])
	}
	slices.Sort(found)
	return found
}

// Each metric has its row in docs/metrics.md, and each row its metric.
// (cmd/narwharf compares types and labels with a running server, nixos with
// what an agent exports.)
func TestMetricsHaveRows(t *testing.T) {
	const metric = `"(narwharf_[a-z_]+)"`
	code, rows := slices.Concat(inCode(t, "cache/", metric), inCode(t, "cmd/", metric), inCode(t, "hooks/", metric), inCode(t, "nixos/", metric), inCode(t, "signing/", metric)), inRows(t, "docs/metrics.md", `narwharf_\w+`)
	slices.Sort(code)
	if !slices.Equal(code, rows) {
		t.Errorf("the code has the metrics\n%q\nand docs/metrics.md\n%q", code, rows)
	}
}

// Links from one document to another lead somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(append(files, more...), "README.md") {
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(readFile(t, name), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: a link to %s, which is not there", name, m[1])
			}
		}
	}
}

// docs/architecture.md names each package of the product: by its path, or by its
// last word in the row of a package above it; those for tests alone may be left out.
// Files that it names are there.
func TestArchitecture(t *testing.T) {
	text := readFile(t, "docs/architecture.md")
	named := make(map[string]bool)
	word := regexp.MustCompile("`([a-z0-9/]+)`")
	for line := range strings.Lines(text) {
		first, rest, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !ok || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, m := range word.FindAllStringSubmatch(first, -1) {
			named[m[1]] = true
			for _, below := range word.FindAllStringSubmatch(rest, -1) {
				named[m[1]+"/"+below[1]] = true
			}
			if st, err := os.Stat(m[1]); err != nil || !st.IsDir() {
				t.Errorf("docs/architecture.md names %s, which is no folder", m[1])
			}
		}
	}
	for _, name := range goFiles(t) {
		dir := filepath.ToSlash(filepath.Dir(name))
		switch top, _, _ := strings.Cut(dir, "/"); top {
		case "cmd", "cache", "hooks", "narinfo", "nixos", "signing":
			if !named[dir] && !strings.HasSuffix(dir, "test") {
				t.Errorf("docs/architecture.md does not name the package %s", dir)
				named[dir] = true
			}
		}
	}
	for _, m := range regexp.MustCompile("`([a-z_/]+/[a-z_]+\\.go)`").FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(m[1]); err != nil {
			t.Errorf("docs/architecture.md names a file that is gone: %v", err)
		}
	}
}
