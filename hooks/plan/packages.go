package plan

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"narwharf/hooks/api/plan"
	"narwharf/signing"
)

// minDelta is by how many bytes a package of the same versions has to differ to be told.
const minDelta = 8 << 10

// outputName is what stands behind the version in a path's name where that is an output: Nix
// cannot tell it from a version such as "unstable", either (src/nix/diff-closures.cc).
var outputName = regexp.MustCompile(`^(.*)-(?:[a-z]+|lib32|lib64)$`)

// split is the name of a package and its version, of the name of a store path: the version
// begins behind the first dash that no letter follows (DrvName in src/libstore/names.cc).
func split(name string) (pkg, version string) {
	if m := outputName.FindStringSubmatch(name); m != nil {
		name = m[1]
	}
	for i := range len(name) - 1 {
		if c := name[i+1]; name[i] == '-' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

// group is a package in a closure.
type group struct {
	versions map[string]bool
	bytes    int64
}

func groups(m *signing.Manifest) map[string]*group {
	all := make(map[string]*group)
	if m == nil {
		return all
	}
	for _, l := range m.Lines {
		name, version := split(l.Path.Name())
		g := all[name]
		if g == nil {
			g = &group{versions: make(map[string]bool)}
			all[name] = g
		}
		g.versions[version] = true
		g.bytes += l.NarSize
	}
	return all
}

// packages lists what is another between two closures, the largest difference first.
func packages(before, after *signing.Manifest) (list []plan.Package) {
	was, is := groups(before), groups(after)
	names := maps.Clone(was)
	maps.Copy(names, is)
	for name := range names {
		p := plan.Package{Name: name}
		if g := was[name]; g != nil {
			p.Before, p.Bytes = slices.SortedFunc(maps.Keys(g.versions), compare), -g.bytes
		}
		if g := is[name]; g != nil {
			p.After = slices.SortedFunc(maps.Keys(g.versions), compare)
			p.Bytes += g.bytes
		}
		switch {
		case slices.Equal(p.Before, p.After) && p.Bytes < minDelta && p.Bytes > -minDelta:
			continue
		case len(p.Before) > 0 && len(p.After) > 0:
			p.Older = compare(p.After[len(p.After)-1], p.Before[len(p.Before)-1]) < 0
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b plan.Package) int {
		return cmp.Or(cmp.Compare(size(b.Bytes), size(a.Bytes)), strings.Compare(a.Name, b.Name))
	})
	return list
}

func size(n int64) int64 { return max(n, -n) }

// compare orders versions as builtins.compareVersions does (src/libstore/names.cc).
func compare(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a = component(a)
		y, b = component(b)
		if c := compareComponents(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// component takes the next one off a version: digits, or what is neither digit, dot nor dash.
func component(s string) (first, rest string) {
	s = strings.TrimLeft(s, ".-")
	if s == "" {
		return "", ""
	}
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	i := 1
	for i < len(s) && s[i] != '.' && s[i] != '-' && digit(s[i]) == digit(s[0]) {
		i++
	}
	return s[:i], s[i:]
}

// compareComponents: numbers by their value, "pre" before all, words before numbers.
func compareComponents(x, y string) int {
	number := func(s string) (string, bool) {
		return strings.TrimLeft(s, "0"), s != "" && strings.Trim(s, "0123456789") == ""
	}
	n, isN := number(x)
	m, isM := number(y)
	switch {
	case isN && isM:
		return cmp.Or(cmp.Compare(len(n), len(m)), strings.Compare(n, m))
	case x == y:
		return 0
	case x == "" && isM:
		return -1
	case y == "" && isN:
		return 1
	case x == "pre":
		return -1
	case y == "pre":
		return 1
	case isM:
		return -1
	case isN:
		return 1
	}
	return strings.Compare(x, y)
}
