package rule

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"narwharf/narinfo/clip"
)

// A pattern is a value of a rule: texts of which one has to fit, or a table.
type pattern struct {
	texts []string
	table table
}

type table map[string]pattern

// What nobody writes by hand.
const (
	maxDepth = 8
	maxTexts = 100
	maxText  = 1 << 10
)

// compile reads the claims of a rule as TOML has them.
func compile(claims map[string]any, depth int) (table, error) {
	if len(claims) == 0 {
		return nil, errors.New("there are none: whoever the issuer knows would fit")
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("tables lie in each other more than %d deep", maxDepth)
	}
	t := make(table, len(claims))
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		p, err := compileValue(claims[name], depth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pathText([]string{name}), err)
		}
		t[name] = p
	}
	return t, nil
}

func compileValue(value any, depth int) (p pattern, err error) {
	switch v := value.(type) {
	case map[string]any:
		p.table, err = compile(v, depth+1)
		return p, err
	case []any:
		if len(v) == 0 || len(v) > maxTexts {
			return p, fmt.Errorf("a list has 1 to %d elements", maxTexts)
		}
		for _, x := range v {
			text, err := compileText(x)
			if err != nil {
				return p, err
			}
			p.texts = append(p.texts, text)
		}
		return p, nil
	}
	text, err := compileText(value)
	return pattern{texts: []string{text}}, err
}

func compileText(value any) (string, error) {
	text, ok := scalar(value)
	switch {
	case !ok:
		return "", fmt.Errorf("%v is no text, number, true or false, and no list of those", value)
	case text == "":
		return "", errors.New("the text is empty: leave the line out, since a claim that is not there fits nothing")
	case len(text) > maxText || strings.Contains(text, "**"):
		return "", fmt.Errorf("%s is longer than %d bytes, or has ** in it", clip.Quote(text, 64), maxText)
	}
	return text, nil
}

// scalar is a value as text, if it has one.
func scalar(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case json.Number:
		return v.String(), true
	}
	return "", false
}

// A Difference is a claim that does not fit.
type Difference struct {
	Claim string `json:"claim"`         // its path, with quotes where it needs them
	Wants string `json:"wants"`         // what the rule has, as TOML
	Has   string `json:"has,omitempty"` // what the JWT has, as JSON, cut; "": it is not there
}

// String is a clause for people.
func (d Difference) String() string {
	if d.Has == "" {
		return fmt.Sprintf("%s is not there, and has to be %s", d.Claim, d.Wants)
	}
	return fmt.Sprintf("%s is %s, and has to be %s", d.Claim, d.Has, d.Wants)
}

// differ returns which claims do not fit, in order of their names.
func (t table) differ(path []string, claims map[string]any) (list []Difference) {
	for _, name := range slices.Sorted(maps.Keys(t)) {
		p, value := t[name], claims[name]
		at := append(slices.Clone(path), name)
		if p.table == nil {
			if !p.fits(value) {
				list = append(list, Difference{Claim: pathText(at), Wants: p.String(), Has: jsonText(value)})
			}
			continue
		}
		object, ok := value.(map[string]any)
		if !ok && value != nil {
			list = append(list, Difference{Claim: pathText(at), Wants: "an object", Has: jsonText(value)})
			continue
		}
		list = append(list, p.table.differ(at, object)...)
	}
	return list
}

// fits tells whether a claim, or an element of it, fits one of the texts.
func (p pattern) fits(value any) bool {
	if list, ok := value.([]any); ok {
		return slices.ContainsFunc(list, func(x any) bool { return p.fitsText(x) })
	}
	return p.fitsText(value)
}

func (p pattern) fitsText(value any) bool {
	text, ok := scalar(value)
	return ok && slices.ContainsFunc(p.texts, func(glob string) bool { return match(glob, text) })
}

// String is the pattern as TOML.
func (p pattern) String() string {
	words := make([]string, len(p.texts))
	for i, text := range p.texts {
		words[i] = clip.Quote(text, 200)
	}
	if len(words) == 1 {
		return words[0]
	}
	return "one of " + clip.List(words)
}

// jsonText is a claim for people, "" if it is not there.
func jsonText(value any) string {
	if value == nil {
		return ""
	}
	text, err := json.Marshal(value)
	if err != nil {
		return "?"
	}
	return clip.Line(string(text), 200)
}

// match tells whether a glob fits all of a text. A * takes neither / nor :, so the parts between those
// fit each for itself.
func match(glob, text string) bool {
	for {
		g, t := strings.IndexAny(glob, "/:"), strings.IndexAny(text, "/:")
		if g < 0 || t < 0 {
			return g == t && matchPart(glob, text)
		}
		if glob[g] != text[t] || !matchPart(glob[:g], text[:t]) {
			return false
		}
		glob, text = glob[g+1:], text[t+1:]
	}
}

// matchPart is match where a * takes everything: it goes back to the last * alone.
func matchPart(glob, text string) bool {
	g, t := 0, 0
	star, from := -1, 0 // the last *, and what it has taken ends before
	for t < len(text) {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, from = g, t
			g++
		case g < len(glob) && glob[g] == text[t]:
			g++
			t++
		case star >= 0:
			from++
			g, t = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(glob[g:], "*") == ""
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// pathText writes the path of a claim as a dotted key of TOML.
func pathText(path []string) string {
	words := make([]string, len(path))
	for i, name := range path {
		if words[i] = name; !bareKey.MatchString(name) {
			words[i] = clip.Quote(name, 100)
		}
	}
	return strings.Join(words, ".")
}

// parsePath reads a dotted key of TOML: google.compute_engine.instance_name, or
// "kubernetes.io".pod.name.
func parsePath(text string) (path []string, err error) {
	wrong := fmt.Errorf("%s is no claim: write sub, or google.compute_engine.instance_name for one within others, with quotes where a name has a dot of its own: '\"kubernetes.io\".pod.name'", clip.Quote(text, 100))
	for rest := text; ; {
		name, after, dot := strings.Cut(rest, ".")
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			var closed bool
			if name, after, closed = strings.Cut(quoted, `"`); !closed || name == "" {
				return nil, wrong
			}
			if after, dot = strings.CutPrefix(after, "."); !dot && after != "" {
				return nil, wrong
			}
		} else if !bareKey.MatchString(name) {
			return nil, wrong
		}
		path = append(path, name)
		if len(path) > maxDepth {
			return nil, wrong
		}
		if !dot {
			return path, nil
		}
		rest = after
	}
}

// find is the claim at a path, nil if there is none.
func find(claims map[string]any, path []string) (value any) {
	value = claims
	for _, name := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[name]
	}
	return value
}
