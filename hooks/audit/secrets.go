package audit

import (
	"bytes"
	"regexp"
)

// A shape is what a kind of secret looks like.
type shape struct {
	mark string // that is in each
	text *regexp.Regexp
	hide string // what stands in its place
}

// shapes are the secrets that people have beside Narwharf, in the text of a line, which is JSON.
var shapes = []shape{
	{"nwt_", regexp.MustCompile(`(nwt_[0-9a-z]{10}_)[0-9a-z]+`), "${1}…"},
	{"eyJ", regexp.MustCompile(`eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*`), "eyJ…"},
	{"==", regexp.MustCompile(`([\w.-]+:)[A-Za-z0-9+/]{86}==`), "${1}…"}, // Nix's secret keys
	{"PRIVATE KEY", regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*`), "-----BEGIN PRIVATE KEY-----…"},
	{"@", regexp.MustCompile(`(://)[^/@\s"\\?#]+@`), "${1}…@"}, // CI's URL of a repository has its token
}

// hidden is the text of a line without what looks like a secret: people paste them into
// reasons, and programs put them into what they say of a release.
func hidden(line []byte) []byte {
	for _, s := range shapes {
		if bytes.Contains(line, []byte(s.mark)) {
			line = s.text.ReplaceAll(line, []byte(s.hide))
		}
	}
	return line
}
