package scope

import (
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// before is what a scope allowed before there were read:, operate:<channel> and targets: written
// down from that narwharf, by words alone.
func before(have, need string) bool {
	verb, glob, _ := strings.Cut(have, ":")
	of, name, _ := strings.Cut(need, ":")
	switch {
	case verb == "admin":
		return true
	case verb == of:
		ok, err := path.Match(glob, name)
		return ok && err == nil
	}
	return of == "pull" && slices.Contains([]string{"push", "promote", "follow", "join"}, verb)
}

// TestScopesOfYesterday: whatever somebody might do by a scope before, he may do now. What looked
// at hosts asked for operate, or for promote of the channel, and asks for read now.
func TestScopesOfYesterday(t *testing.T) {
	words := []string{"pull", "push", "promote:", "follow:", "join:", "operate", "metrics", "admin"}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(glob *rapid.Generator[string], label string) string {
			word := rapid.SampledFrom(words).Draw(t, label)
			if strings.HasSuffix(word, ":") {
				word += glob.Draw(t, label+" of")
			}
			return word
		}
		have, need := draw(genGlob, "have"), draw(genName, "need")
		set, err := ParseSet([]string{have})
		if err != nil {
			t.Fatalf("%s is no scope any more: %v", have, err)
		}
		now := set.Allows(rawScope(need))
		if was := before(have, need); was != now {
			t.Fatalf("%s allowed %s: %t, and now %t", have, need, was, now)
		}
		channel := genName.Draw(t, "channel")
		if looked := before(have, "operate") || before(have, "promote:"+channel); looked && !set.Allows(Scope{Kind: Read, Glob: channel}) {
			t.Fatalf("%s looked at hosts of %s, and does not now", have, channel)
		}
		if _, ok := set.Some(Promote); before(have, "promote:"+channel) && !ok {
			t.Fatalf("%s sent manifests, and does not now", have)
		}
	})
}
