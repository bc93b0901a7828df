package tests

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"narwharf/hooks/serverconfig"
	"narwharf/nixos/config"
)

// What Nix made of the modules with a whole nixpkgs stands in golden/: nobody needs one to
// see that it is as it was. make nixos-eval NIXPKGS=DIR makes it anew.
var nixpkgs = flag.String("nixpkgs", "", "a folder with a whole nixpkgs, with which TestEvaluate evaluates")

const golden = "golden"

// A result is what eval.nix says of a configuration.
type result struct {
	Refuses  []string                  `json:"refuses"`
	Warns    []string                  `json:"warns"`
	Units    map[string]string         `json:"units"`
	Scripts  map[string]string         `json:"scripts"`
	Settings map[string]map[string]any `json:"settings"`
	Files    []string                  `json:"files"`
	Ports    []int                     `json:"ports"`
	Allowed  []string                  `json:"allowed"`
	Sites    []string                  `json:"sites"`
}

// A row is what configurations.nix wants of one.
type row struct{ Throws, Refuses, Warns string }

// storePath is a path in the store, whose hash says nothing about us.
var storePath = regexp.MustCompile(`/nix/store/[a-z0-9]{32}-`)

func withoutHashes(text string) string { return storePath.ReplaceAllString(text, "/nix/store/…-") }

// evaluate asks Nix for an attribute of a file. Nothing is built, and no store is touched.
func evaluate(version, attribute string, into any) error {
	c := exec.Command(filepath.Join(nixDir(), version, "bin", "nix-instantiate"), "--store", "dummy://",
		"--eval", "--strict", "--json", "eval.nix", "--arg", "nixpkgs", *nixpkgs, "-A", attribute)
	var out, words bytes.Buffer
	c.Stdout, c.Stderr = &out, &words
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", attribute, err, words.String())
	}
	return json.Unmarshal(out.Bytes(), into)
}

// everything is what eval.nix says of the table.
type everything struct {
	Table   map[string]row
	Results map[string]result
}

// parts are what TestEvaluate can look at: a machine that has little memory or time looks at some.
var parts = flag.String("parts", "results,systems,flakes,older", "what TestEvaluate evaluates")

// leastNix evaluates the modules: nixpkgs takes no older one, and neither has the functions that
// packages of it use. What is substituted and followed needs no more than 2.8.
const leastNix = "2.18"

// evaluates tells whether a Nix is new enough for nixpkgs.
func evaluates(t *testing.T, version string) bool {
	t.Helper()
	c := exec.Command(filepath.Join(nixDir(), version, "bin", "nix-instantiate"), "--store", "dummy://",
		"--eval", "--expr", "builtins.compareVersions builtins.nixVersion \""+leastNix+"\"")
	out, err := c.Output()
	if err != nil {
		t.Fatalf("Nix of %s: %v", version, err)
	}
	return strings.TrimSpace(string(out)) != "-1"
}

// TestEvaluate evaluates the table of configurations.nix, with each Nix that nixpkgs takes, and the newest
// one writes golden/ and docs/options.md, if it is told to. One Nix runs at a time: it takes gigabytes.
func TestEvaluate(t *testing.T) {
	if *nixpkgs == "" {
		t.Skip("it needs a whole nixpkgs: make nixos-eval NIXPKGS=DIR")
	}
	versions := nixVersions(t)
	last := versions[len(versions)-1]
	ask := func(version, attribute string, into any) {
		if err := evaluate(version, attribute, into); err != nil {
			t.Errorf("Nix of %s: %v", version, err)
		}
	}
	wanted := func(part string) bool { return strings.Contains(*parts, part) }
	if wanted("results") {
		var all everything
		var list []option
		ask(last, "table", &all.Table)
		ask(last, "results", &all.Results)
		ask(last, "options", &list)
		texts := compare(t, &all)
		texts["verdicts.txt"] = verdicts(t, last, &all)
		writeOrCompare(t, texts)
		writeOrCompareFile(t, "../../docs/options.md", optionsPage(list))
		if *write && !t.Failed() {
			writeHashes(t)
		}
	}
	if wanted("systems") {
		var image string
		ask(last, "systems", &map[string]string{})
		ask(last, "image", &image)
		agentInVM := true
		if ask(last, "vm", &agentInVM); agentInVM {
			t.Error("the agent runs in a VM of its host's system")
		}
	}
	if wanted("flakes") {
		var f flake
		for attribute, into := range f.parts() {
			ask(last, "flakes."+attribute, into)
		}
		f.check(t)
	}
	for _, version := range versions[:len(versions)-1] {
		if !wanted("older") {
			break
		}
		if !evaluates(t, version) {
			t.Logf("Nix of %s is older than %s, and evaluates no nixpkgs", version, leastNix)
			continue
		}
		var all everything
		ask(version, "table", &all.Table)
		ask(version, "results", &all.Results)
		compareGolden(t, compare(t, &all)) // words are those of the newest
		ask(version, "systems", &map[string]string{})
	}
}

// compare judges each configuration, and returns what golden/ has of them.
func compare(t *testing.T, all *everything) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for name, r := range all.Results {
		judge(t, name, all.Table[name], r)
		describe(texts, name, r)
	}
	return texts
}

// judge compares what a configuration is with what it should be.
func judge(t *testing.T, name string, want row, r result) {
	t.Helper()
	said := strings.Join(r.Refuses, "\n")
	switch {
	case want.Refuses == "" && said != "":
		t.Errorf("%s is refused: %s", name, said)
	case !strings.Contains(said, want.Refuses):
		t.Errorf("%s is refused with %q, and not with %q", name, said, want.Refuses)
	case want.Refuses != "" && len(r.Refuses) > 1:
		t.Errorf("%s has more than one fault: %q", name, r.Refuses)
	}
	if warned := strings.Join(r.Warns, "\n"); want.Warns == "" && warned != "" || !strings.Contains(warned, want.Warns) {
		t.Errorf("%s has the warnings %q, and not %q", name, warned, want.Warns)
	}
}

// describe adds what golden/ has of a configuration that is not refused.
func describe(texts map[string]string, name string, r result) {
	if len(r.Refuses) > 0 {
		return
	}
	for file, text := range r.Units {
		texts[filepath.Join("units", name, file)] = withoutHashes(text)
	}
	for file, text := range r.Scripts {
		texts[filepath.Join("units", name, file+".sh")] = withoutHashes(text)
	}
	for file, values := range r.Settings {
		text, err := toml.Marshal(whole(values))
		if err != nil {
			panic(err)
		}
		texts[filepath.Join("units", name, filepath.Base(file))] = string(text)
	}
	more := fmt.Sprintf("files %v\nports %v\nallowed at nix-daemon %v\nsites of nginx %v\n", r.Files, r.Ports, r.Allowed, r.Sites)
	texts[filepath.Join("units", name, "more.txt")] = more
}

// whole are values of JSON whose numbers are whole ones.
func whole(value any) any {
	switch v := value.(type) {
	case float64:
		return int64(v)
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = whole(v[name])
		}
	}
	return value
}

// verdicts are the table as people read it, with the words of Nix.
func verdicts(t *testing.T, version string, all *everything) string {
	var lines strings.Builder
	clone, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(all.Table)) {
		want, r := all.Table[name], all.Results[name]
		said := "evaluates"
		switch {
		case want.Throws != "":
			words := lastWords(evaluate(version, "throwing."+name, new(result)))
			if !strings.Contains(words, strings.TrimSpace(want.Throws)) {
				t.Errorf("%s: Nix says %q, and not %q", name, words, want.Throws)
			}
			said = "does not evaluate: " + words
		case want.Refuses != "":
			said = "does not evaluate: " + strings.Join(r.Refuses, "; ")
		case want.Warns != "":
			said = "evaluates, with a warning: " + strings.Join(r.Warns, "; ")
		}
		fmt.Fprintf(&lines, "%s %s\n", name, strings.ReplaceAll(said, clone+"/", "")) // wherever it lies
	}
	return lines.String()
}

// lastWords are Nix's error without the trace and the definitions.
func lastWords(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if i := strings.LastIndex(text, "error: "); i >= 0 {
		text = text[i+len("error: "):]
	}
	text, _, _ = strings.Cut(text, "\n")
	text, _, _ = strings.Cut(text, " Definition values:")
	text, _, _ = strings.Cut(text, " TypeError: ")
	return strings.TrimSpace(text)
}

// A flake is what the flake, its lib and the templates give.
type flake struct {
	Packages, Checks map[string]string
	Overlay, Cache   string
	Fleet            struct {
		Hosts           map[string]string
		Release, Deploy string
	}
	Release struct {
		Shared  string
		All     map[string]string
		Refused map[string]bool
	}
	KeyInStore bool
}

// parts are what is asked for alone.
func (f *flake) parts() map[string]any {
	return map[string]any{"packages": &f.Packages, "checks": &f.Checks, "overlay": &f.Overlay, "cache": &f.Cache, "fleet": &f.Fleet, "release": &f.Release, "keyInStore": &f.KeyInStore}
}

func (f *flake) check(t *testing.T) {
	t.Helper()
	if len(f.Packages) != 3 || len(f.Checks) != 4 || f.Overlay != f.Packages["x86_64-linux"] || len(f.Fleet.Hosts) != 4 || len(f.Release.All) != 1 || len(f.Release.Refused) != 5 || !f.KeyInStore {
		t.Errorf("%+v", f)
	}
	for name, refused := range f.Release.Refused {
		if !refused {
			t.Errorf("lib.release takes %s", name)
		}
	}
}

// An option of the modules.
type option struct {
	Name, Type       string
	Description      any
	Default, Example any
}

// optionsPage is docs/options.md.
func optionsPage(list []option) string {
	var b strings.Builder
	b.WriteString("# Options of the NixOS modules\n\nMade by `make nixos-eval`. [nixos.md](nixos.md) says how to begin; `settings` are the keys of\n[config.md](config.md) and [agent.md](agent.md#configuration), those that are not here, too.\n")
	for _, o := range list {
		fmt.Fprintf(&b, "\n## `%s`\n\n%s\n\nType: %s\n", o.Name, strings.TrimSpace(text(o.Description)), o.Type)
		if o.Default != nil {
			fmt.Fprintf(&b, "\nDefault: `%s`\n", strings.TrimSpace(text(o.Default)))
		}
		if o.Example != nil {
			fmt.Fprintf(&b, "\nExample: `%s`\n", strings.TrimSpace(text(o.Example)))
		}
	}
	return withoutHashes(b.String())
}

// text is what the module system calls a text: itself, or a value with one.
func text(value any) string {
	if m, ok := value.(map[string]any); ok {
		return text(m["text"])
	}
	s, _ := value.(string)
	return s
}

func compareGolden(t *testing.T, texts map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		is, err := os.ReadFile(filepath.Join(golden, name))
		if err != nil || string(is) != texts[name] {
			t.Errorf("%s: %v: it is now\n%s", name, err, texts[name])
		}
	}
}

// writeOrCompare makes golden/ what texts are.
func writeOrCompare(t *testing.T, texts map[string]string) {
	t.Helper()
	if !*write {
		compareGolden(t, texts)
		return
	}
	if err := os.RemoveAll(filepath.Join(golden, "units")); err != nil {
		t.Fatal(err)
	}
	for name, text := range texts {
		writeOrCompareFile(t, filepath.Join(golden, name), text)
	}
}

func writeOrCompareFile(t *testing.T, name, text string) {
	t.Helper()
	if *write {
		if err := cmp.Or(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	if is, err := os.ReadFile(name); err != nil || string(is) != text {
		t.Errorf("%s is not what Nix makes of the modules (%v): make nixos-eval", name, err)
	}
}

// The program takes each configuration that the modules write.
func TestSettings(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(golden, "units", "*", "*.toml"))
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		load := func(name string) error { _, err := serverconfig.Load(name); return err }
		if filepath.Base(name) == "agent.toml" {
			load = func(name string) error { _, err := config.Load(name); return err }
		}
		if err := load(name); err != nil {
			t.Error(err)
		}
	}
}

// nixDir is where make nix-clients unpacked.
func nixDir() string { return cmp.Or(os.Getenv("NARWHARF_NIX_DIR"), "../../.cache/nix") }

// nixVersions are the suites of Debian whose Nix is there, the newest last.
func nixVersions(t *testing.T) (versions []string) {
	t.Helper()
	for _, suite := range []string{"bookworm", "trixie", "forky"} {
		if _, err := os.Stat(filepath.Join(nixDir(), suite, "stamp")); err == nil {
			versions = append(versions, suite)
		} else if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatalf("no Nix of Debian %s: make nix-clients", suite)
		}
	}
	if len(versions) == 0 {
		t.Skip(errors.New("no Nix: make nix-clients"))
	}
	return versions
}
