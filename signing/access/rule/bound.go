package rule

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"narwharf/narinfo/clip"
	"narwharf/signing/access/scope"
)

// A bound is a scope with a target that a claim names: promote:web/{ref}:test, where the text of the
// claim ref has one *. What that stands for in a JWT is the target.
type bound struct {
	before, after string   // of the scope
	path          []string // of the claim
	head, tail    string   // of the claim's text, around the *
}

var boundGrammar = regexp.MustCompile(`^(promote:[^/{}]+/)\{([^{}]+)\}(:test)?$`)

// readScopes reads the scopes of a rule, whose claims were read.
func (r *Rule) readScopes() (err error) {
	var plain []string
	for _, text := range r.spec.Scopes {
		if !strings.ContainsAny(text, "{}") {
			plain = append(plain, text)
			continue
		}
		b, err := r.readBound(text)
		if err != nil {
			return fmt.Errorf("%s: %w", clip.Quote(text, 100), err)
		}
		r.bounds = append(r.bounds, b)
	}
	r.scopes, err = scope.ParseSet(plain)
	return err
}

func (r *Rule) readBound(text string) (b bound, err error) {
	m := boundGrammar.FindStringSubmatch(text)
	if m == nil {
		return b, errors.New("a claim in {} stands for a target alone: promote:CHANNEL/{ref}:test")
	}
	b.before, b.after = m[1], m[3]
	if _, err := scope.Parse(b.before + "x" + b.after); err != nil {
		return b, err
	}
	if b.path, err = parsePath(m[2]); err != nil {
		return b, err
	}
	p, ok := r.claims.at(b.path)
	if !ok || len(p.texts) != 1 || strings.Count(p.texts[0], "*") != 1 {
		return b, fmt.Errorf("the claim %s of this rule has to be one text with one *, which stands for the target: %s = \"refs/heads/test-*\"", m[2], m[2])
	}
	b.head, b.tail, _ = strings.Cut(p.texts[0], "*")
	return b, nil
}

// of is the scope that claims come to which fit the rule but for this, or how they do not.
func (b *bound) of(claims map[string]any) (s scope.Scope, d *Difference) {
	value := find(claims, b.path)
	text, ok := value.(string) // of a list it would not be clear which
	name := strings.TrimSuffix(strings.TrimPrefix(text, b.head), b.tail)
	// A name has no *, which would be the right for others.
	if ok && len(text) >= len(b.head)+len(b.tail) && hostGrammar.MatchString(name) {
		if s, err := scope.Parse(b.before + name + b.after); err == nil {
			return s, nil
		}
	}
	return s, &Difference{Claim: pathText(b.path), Wants: clip.Quote(b.head+"*"+b.tail, 200) + " with the name of a target for *", Has: jsonText(value)}
}
