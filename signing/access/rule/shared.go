package rule

import (
	"fmt"
	"slices"
	"strings"

	"narwharf/narinfo/clip"
)

// sharedIssuers are those where everybody may have an account: their JWTs say nothing until a claim
// says whose they are. What lies below one of them is shared, too.
var sharedIssuers = []string{
	"https://token.actions.githubusercontent.com",
	"https://gitlab.com",
	"https://codeberg.org",
	"https://agent.buildkite.com",
	"https://oidc.circleci.com",
	"https://accounts.google.com",
}

// Shared tells whether strangers share an issuer.
func Shared(issuer string) bool {
	return slices.ContainsFunc(sharedIssuers, func(s string) bool {
		return issuer == s || strings.HasPrefix(issuer, s+"/")
	})
}

// owners are the claims that say whose a JWT is, and how many parts of their text, between / and :,
// name the owner: of "repo:octo/web:ref:…" two do.
var owners = []struct {
	path  []string
	parts int
}{
	{[]string{"repository"}, 1},
	{[]string{"repository_id"}, 1},
	{[]string{"repository_owner"}, 1},
	{[]string{"repository_owner_id"}, 1},
	{[]string{"project_id"}, 1},
	{[]string{"project_path"}, 1},
	{[]string{"namespace_id"}, 1},
	{[]string{"organization_id"}, 1},
	{[]string{"organization_slug"}, 1},
	{[]string{"sub"}, 2},
	{[]string{"email"}, 1},
	{[]string{"google", "compute_engine", "project_id"}, 1},
}

// bound refuses a rule for a shared issuer that anybody there could fit.
func (t table) bound() error {
	names := make([]string, len(owners))
	loose := ""
	for i, o := range owners {
		names[i] = pathText(o.path)
		p, ok := t.at(o.path)
		switch {
		case !ok:
		case slices.ContainsFunc(p.texts, func(text string) bool { return strings.Contains(beginning(text, o.parts), "*") }):
			loose = fmt.Sprintf(" (%s is not enough: a * stands where it says whose it is)", names[i]+" = "+clip.Quote(p.texts[0], 64))
		default:
			return nil
		}
	}
	return fmt.Errorf("strangers have accounts at this issuer: bind one of %s%s", strings.Join(names, " "), loose)
}

// at is the pattern at a path, if it is one of texts.
func (t table) at(path []string) (p pattern, ok bool) {
	for _, name := range path {
		if p, ok = t[name]; !ok {
			return pattern{}, false
		}
		t = p.table
	}
	return p, len(p.texts) > 0
}

// beginning is as many parts of a text.
func beginning(text string, parts int) string {
	for at := range len(text) {
		if text[at] == '/' || text[at] == ':' {
			if parts--; parts == 0 {
				return text[:at]
			}
		}
	}
	return text
}
