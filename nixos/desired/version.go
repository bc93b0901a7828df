package desired

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"narwharf/narinfo/clip"
)

var versionGrammar = regexp.MustCompile(`^v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?:[-+].*)?$`)

// tooOld says why an agent of this version may not act for a server that wants
// at least another one, "" if it may. A version that is none, as of an agent
// that a developer built, is taken for new enough.
func tooOld(version, least string) string {
	if least == "" {
		return ""
	}
	want, ok := parseVersion(least)
	if !ok {
		return fmt.Sprintf("the server wants an agent of version %q, which this one (%s) cannot read", clip.Text(least, 40), version)
	}
	have, ok := parseVersion(version)
	if !ok {
		return ""
	}
	for i := range have {
		if have[i] != want[i] {
			if have[i] > want[i] {
				return ""
			}
			return fmt.Sprintf("this agent is version %s, the server wants %s or newer: update the agent by hand, or lower min_agent", version, least)
		}
	}
	return ""
}

// parseVersion reads "0.5", "v0.5.1" and "0.5.1-3-gabcdef", of which the last
// part does not count.
func parseVersion(s string) (v [3]int, ok bool) {
	m := versionGrammar.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return v, false
	}
	for i, text := range m[1:] {
		v[i], _ = strconv.Atoi(text) // at most nine digits, or none for 0
	}
	return v, true
}
