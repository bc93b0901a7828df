package scope

import (
	"fmt"
	"strings"

	"narwharf/narinfo/clip"
)

// Words are the first words of a denial for want of a scope, and what to do about it: a command
// line that can be typed as it stands. Both are printable ASCII.
func (s Scope) Words() (needs, remedy string) {
	if !s.Named() {
		return fmt.Sprintf("this needs the scope %s for what is not the name of a channel", s.Kind), "check the name"
	}
	text := clip.ASCII(s.String(), maxWords)
	switch {
	case s.Kind == Metrics:
		return "this needs the scope metrics", "make one with narwharf token new --name prometheus --scope metrics --out FILE, then in prometheus.yml: authorization: {credentials_file: FILE}"
	case s.Kind == Join && strings.Contains(s.Glob, "*"):
		return "this needs a join token", "make one with narwharf token new --join web, for the channel web"
	case s.Kind == Join:
		return "this needs a join token of " + s.Glob, "make one with narwharf token new --join " + s.Glob
	case strings.Contains(text, "*"):
		return "this needs the scope " + text, "make one with narwharf token new --scope '" + text + "'" // else a shell may look for files
	}
	return "this needs the scope " + text, "make one with narwharf token new --scope " + text
}

// maxWords is the longest scope, in bytes.
const maxWords = len("promote:") + MaxGlob + len("/") + MaxGlob + len(testSuffix)

// Words lists what somebody has: "pull, follow:web and 3 more only".
func (s Set) Words() string {
	if len(s) == 0 {
		return "no scope"
	}
	const limit = 40
	list := clip.ASCII(s[0].String(), limit)
	for i, scope := range s[1:] {
		word := clip.ASCII(scope.String(), limit)
		if len(list)+len(word) > limit {
			return fmt.Sprintf("%s and %d more only", list, len(s)-1-i)
		}
		list += ", " + word
	}
	return list + " only"
}
