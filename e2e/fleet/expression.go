package fleet

import (
	"fmt"
	"regexp"
	"strings"
)

// expand replaces the ${{ }} of a text by what they are in contexts ("vars", "github", …), as GitHub
// does: what is not there is "".
func expand(text string, contexts map[string]any) (string, error) {
	var failed error
	out := inBraces.ReplaceAllStringFunc(text, func(m string) string {
		value, err := evaluate(strings.TrimSpace(m[3:len(m)-2]), contexts)
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", m, err)
		}
		return asText(value)
	})
	return out, failed
}

var inBraces = regexp.MustCompile(`\$\{\{[^}]*\}\}`)

// evaluate knows as much of the forges' expressions as the files of docs/ci use: names, texts in
// quotes, == != =~ ! && || and brackets, startsWith() and contains().
func evaluate(text string, contexts map[string]any) (any, error) {
	e := &expression{words: words.FindAllString(text, -1), contexts: contexts}
	value := e.or()
	if e.err == nil && len(e.words) > 0 {
		e.err = fmt.Errorf("not understood from %q on", e.words[0])
	}
	return value, e.err
}

var words = regexp.MustCompile(`'(?:[^']|'')*'|"[^"]*"|/[^/]+/|\$?[\w.*-]+|==|!=|=~|&&|\|\||\S`)

type expression struct {
	words    []string
	contexts map[string]any
	err      error
}

func (e *expression) next(wanted ...string) (string, bool) {
	if len(e.words) == 0 {
		return "", false
	}
	word := e.words[0]
	for _, w := range wanted {
		if w == word {
			e.words = e.words[1:]
			return word, true
		}
	}
	return word, false
}

func (e *expression) or() any {
	value := e.and()
	for {
		if _, ok := e.next("||"); !ok {
			return value
		}
		if other := e.and(); !truth(value) {
			value = other
		}
	}
}

func (e *expression) and() any {
	value := e.equal()
	for {
		if _, ok := e.next("&&"); !ok {
			return value
		}
		if other := e.equal(); truth(value) {
			value = other
		}
	}
}

func (e *expression) equal() any {
	value := e.one()
	word, ok := e.next("==", "!=", "=~")
	switch {
	case !ok:
		return value
	case word != "=~":
		return (asText(value) == asText(e.one())) == (word == "==")
	case len(e.words) == 0 || len(e.words[0]) < 2:
		e.fail("a pattern is missing")
		return nil
	}
	pattern, err := regexp.Compile(strings.Trim(e.words[0], "/"))
	e.words = e.words[1:]
	if err != nil {
		e.fail("%v", err)
		return nil
	}
	return pattern.MatchString(asText(value))
}

func (e *expression) one() any {
	if _, ok := e.next("!"); ok {
		return !truth(e.one())
	}
	if _, ok := e.next("("); ok {
		value := e.or()
		e.close()
		return value
	}
	if len(e.words) == 0 {
		e.fail("something is missing at the end")
		return nil
	}
	word := e.words[0]
	e.words = e.words[1:]
	switch {
	case strings.HasPrefix(word, "'"):
		return strings.ReplaceAll(word[1:len(word)-1], "''", "'")
	case strings.HasPrefix(word, `"`):
		return strings.Trim(word, `"`)
	case strings.HasPrefix(word, "$"):
		return e.lookUp("env." + word[1:])
	case word == "true" || word == "false":
		return word == "true"
	case word == "null":
		return nil
	}
	if _, ok := e.next("("); ok {
		return e.call(word)
	}
	return e.lookUp(word)
}

func (e *expression) call(name string) any {
	first := e.or()
	if _, ok := e.next(","); !ok {
		e.fail("%s has two arguments", name)
	}
	second := asText(e.or())
	e.close()
	switch name {
	case "startsWith":
		return strings.HasPrefix(asText(first), second)
	case "contains":
		if list, ok := first.([]any); ok {
			for _, v := range list {
				if asText(v) == second {
					return true
				}
			}
			return false
		}
		return strings.Contains(asText(first), second)
	}
	e.fail("no function %s", name)
	return nil
}

func (e *expression) close() {
	if _, ok := e.next(")"); !ok {
		e.fail("a bracket is not closed")
	}
}

func (e *expression) lookUp(name string) any {
	var value any = e.contexts
	for i, part := range strings.Split(name, ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[part]
			if i == 0 && value == nil {
				e.fail("no context %s", part)
			}
		case map[string]string:
			value = v[part]
		default:
			return nil
		}
	}
	return value
}

func (e *expression) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

func truth(value any) bool { return value != nil && value != false && value != "" }

func asText(value any) string {
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}
