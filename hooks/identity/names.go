package identity

import (
	"cmp"
	"crypto/rand"
	"slices"
	"strings"

	"narwharf/hooks/api"
)

// name is the name of the host that a join makes: that of the key or the claim, else the one that
// the machine asks for, if it fits, or has already, else one that is drawn. taken tells whether a
// name is somebody's.
func (p *proven) name(asked, has string, taken func(name string) bool) (string, error) {
	switch {
	case p.Host != "" && asked != "" && asked != p.Host:
		return "", api.Errorf(api.Forbidden, "%s says that this machine is %s, and it asks to be %s: leave host out of the agent's configuration", p.Name(), p.Host, asked)
	case p.Host != "":
		return p.Host, nil
	case asked != "" && !slices.ContainsFunc(p.names, func(glob string) bool { return fits(glob, asked) }):
		return "", api.Errorf(api.Forbidden, "%s lets machines be called %s, and this one asks to be %s: leave host out of the agent's configuration, or widen hosts of the rule", p.Name(), strings.Join(p.names, " or "), asked)
	case asked != "" || has != "":
		return cmp.Or(asked, has), nil
	case len(p.names) == 0:
		return "", api.Errorf(api.Forbidden, "%s does not say what machines are called: give it hosts or host_claim", p.Name())
	}
	for _, glob := range p.names {
		if name := strings.ReplaceAll(glob, "*", ""); name == glob && !taken(name) {
			return name, nil
		} else if name == glob {
			continue
		}
		for range 8 {
			if name := strings.ReplaceAll(glob, "*", strings.ToLower(rand.Text()[:10])); !taken(name) {
				return name, nil
			}
		}
	}
	return "", api.Errorf(api.IdentityConflict, "all names that %s lets machines have are taken: %s", p.Name(), strings.Join(p.names, ", "))
}

// fits tells whether a name fits a glob, in which * is any run of characters.
func fits(glob, name string) bool {
	first, rest, star := strings.Cut(glob, "*")
	if !star {
		return glob == name
	}
	name, ok := strings.CutPrefix(name, first)
	for ok && star {
		var part string
		if part, rest, star = strings.Cut(rest, "*"); !star {
			return strings.HasSuffix(name, part)
		}
		_, name, ok = strings.Cut(name, part)
	}
	return false
}
