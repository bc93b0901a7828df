// Package narwharf_test holds what is true of the module as a whole: which
// package may import which, how long a file may be, and that each dependency
// has its reason written down.
package narwharf_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "narwharf"

// mayImport is what each package may import of this module, and testsMayImport what
// its tests may beyond that.
var mayImport, testsMayImport = readLayout("docs/design/layout.txt")

// readLayout reads the table of packages; its head says how it is written.
func readLayout(name string) (may, tests map[string][]string) {
	may, tests = map[string][]string{}, map[string][]string{}
	text, err := os.ReadFile(name)
	if err != nil {
		panic(err)
	}
	last := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		pkg, imports, ok := strings.Cut(line, ":")
		names := strings.Fields(imports)
		if !ok || line <= last || !slices.IsSorted(names) {
			panic(name + ": not sorted, or no colon: " + line)
		}
		last = line
		if pkg == "." {
			pkg = ""
		}
		to := may
		if of, isTest := strings.CutPrefix(pkg, "test "); isTest {
			pkg, to = of, tests
		}
		to[pkg] = names
	}
	return may, tests
}

// allMayImport is what every package may import: tiny leaves.
var allMayImport = []string{"cache/state/progress", "narinfo/clip"}

// onlyIn names the files that alone may import a module, tests left out, so
// that leaving it stays a day's work.
var onlyIn = map[string][]string{
	"github.com/labstack/echo": {"hooks/routes.go"},
	"github.com/spf13/cobra":   {"cmd/narwharf/*.go", "cmd/narwharf/*/*.go"},
	"github.com/pelletier":     {"hooks/configfile/*.go", "nixos/bootstrap/script.go"},
	"go.etcd.io/bbolt":         {"cache/state/bolt/*.go"},
	// Handlers and clients know HTTP; what they call does not.
	"net/http": {"bench/*.go", "bench/demo/*.go", "cache/*.go", "cache/copies/remote/*.go", "cache/failure/*.go", "cache/meter/*.go", "cache/fastpath/*.go", "cache/limits/*.go", "cache/reply/*.go", "cache/state/admin/*.go", "cache/upstream/*.go", "cmd/narwharf/server/*.go", "cmd/narwharf/server/machines/*.go", "cmd/narwharf/server/keypair/*.go", "cmd/narwharf/server/shutdown/*.go", "cmd/narwharf/server/uploads/*.go", "e2e/*.go", "e2e/*/*.go",
		"cache/blob/s3/*.go", "cache/blob/s3/s3test/*.go",
		"hooks/api/gate/*.go", "hooks/rollout/check/*.go",
		"cache/probe/*.go", "hooks/doctor/remote/*.go",
		"hooks/*.go", "hooks/call/*.go", "hooks/call/*/*.go", "hooks/dashboard/*.go", "hooks/dashboard/frame/*.go", "hooks/dashboard/frame/frametest/*.go", "hooks/dashboard/fleet/*.go", "hooks/dashboard/channels/*.go", "hooks/dashboard/live/*.go", "signing/access/session/*.go", "hooks/api/*.go", "hooks/api/login/*.go", "hooks/api/policy/*.go", "hooks/api/retention/*.go", "hooks/api/rollouts/*.go", "hooks/api/alarm/*.go", "hooks/api/notify/*.go", "hooks/notify/*.go", "hooks/api/transport/*.go", "hooks/login/*.go", "cmd/narwharf/access/login.go", "hooks/longpoll/*.go", "hooks/reply/*.go", "nixos/linux/*.go", "nixos/linux/join/*.go", "nixos/relay/*.go", "nixos/remote/*.go", "nixos/identity/*.go", "signing/access/*.go", "signing/access/awsiam/*.go", "signing/browser/*.go",
		"signing/access/oidc/*.go", "signing/access/oidc/oidctest/*.go"},
}

type goPackage struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
}

func (p goPackage) all() []string {
	all := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
	slices.Sort(all)
	return slices.Compact(all)
}

// goPackages asks the go command for all packages of the module.
func goPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Imports,TestImports,XTestImports", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range goPackages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("the package %s has no row in mayImport: what may it import?", name)
			continue
		}
		for _, path := range p.all() {
			of, ours := strings.CutPrefix(path, module+"/")
			if !ours || of == name {
				continue
			}
			allowed := slices.Concat(allowed, allMayImport)
			if !slices.Contains(p.Imports, path) {
				allowed = slices.Concat(allowed, testsMayImport[name])
			}
			if !slices.ContainsFunc(allowed, func(a string) bool {
				prefix, tree := strings.CutSuffix(a, "...")
				return a == of || tree && strings.HasPrefix(of, prefix)
			}) {
				t.Errorf("%s imports %s and may import %q only", name, of, allowed)
			}
		}
	}
}

// goFiles are all Go files of the module, by slash-separated name.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || name == "data" || name == "bin"):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, ".go"):
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// linesOf counts the lines of a file; one that is gone meanwhile has none.
func linesOf(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}

func TestFilesAreShort(t *testing.T) {
	const most = 600
	for _, name := range goFiles(t) {
		if n := linesOf(t, name); n > most {
			t.Errorf("%s has %d lines, more than %d: it holds more than one concern", name, n, most)
		}
	}
}

// Tests do not count, and neither do bench and e2e.
func TestPackagesAreSmall(t *testing.T) {
	const most = 1500
	lines := make(map[string]int)
	for _, name := range goFiles(t) {
		root, _, _ := strings.Cut(name, "/")
		if strings.HasSuffix(name, "_test.go") || !slices.Contains([]string{"cmd", "cache", "narinfo", "signing", "hooks", "nixos"}, root) {
			continue
		}
		lines[path.Dir(name)] += linesOf(t, name)
	}
	for name, n := range lines {
		if n > most {
			t.Errorf("%s has %d lines, more than %d: what else could lie beneath or beside it?", name, n, most)
		}
	}
}

var importLine = regexp.MustCompile(`(?m)^(?:import )?\s*(?:[\w.]+ )?"([^"\n]+)"$`)

func TestSomeImportsStandInFewFiles(t *testing.T) {
	for _, name := range goFiles(t) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range importLine.FindAllStringSubmatch(string(text), -1) {
			for path, files := range onlyIn {
				if m[1] != path && !strings.HasPrefix(m[1], path+"/") {
					continue
				}
				if !slices.ContainsFunc(files, func(pattern string) bool {
					ok, err := filepath.Match(pattern, name)
					return ok && err == nil
				}) {
					t.Errorf("%s imports %s, which only %q may", name, m[1], files)
				}
			}
		}
	}
}

// Each module that we import has a line "| `path` | …" in docs/dependencies.md.
func TestDependenciesAreExplained(t *testing.T) {
	text, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| \\S").FindAllSubmatch(text, -1) {
		explained[string(m[1])] = false
	}
	if len(explained) == 0 {
		t.Fatal("no rows in docs/dependencies.md")
	}
	for _, p := range goPackages(t) {
		for _, path := range p.all() {
			host, _, _ := strings.Cut(path, "/")
			if !strings.Contains(host, ".") { // the standard library, and ourselves
				continue
			}
			found := false
			for mod := range explained {
				if path == mod || strings.HasPrefix(path, mod+"/") {
					explained[mod], found = true, true
				}
			}
			if !found {
				t.Errorf("%s imports %s: say in docs/dependencies.md why", p.ImportPath, path)
			}
		}
	}
	for mod, used := range explained {
		if !used {
			t.Errorf("docs/dependencies.md explains %s, which nothing imports", mod)
		}
	}
}
