package sys

import (
	"strings"
	"testing"
)

// TestPasswordOfAProxy: a program's words are reported, and kept in a journal, an
// event and a log. The password of a proxy is in none of them.
func TestPasswordOfAProxy(t *testing.T) {
	const proxy = "http://narwharf:sE#cReT@proxy.example:3128" // '#' should have been %23
	env := []string{"https_proxy=" + proxy}
	for name, script := range map[string]string{
		"an error":         `echo "unable to download: Unsupported proxy syntax in '$https_proxy': Port number" >&2; exit 1`,
		"a warning":        `echo "Unsupported proxy scheme for '$https_proxy'" >&2`,
		"cut in the midst": `printf "%s%2020s" "$https_proxy" "" >&2; echo end >&2; exit 1`,
	} {
		_, words, err := Run(t.Context(), 4096, env, "sh", "-c", script)
		text := words
		if err != nil {
			text += err.Error()
		}
		if strings.Contains(text, "cReT") || !strings.Contains(text, "***@proxy.example:3128") {
			t.Errorf("%s: %q", name, text)
		}
	}
	for words, want := range map[string]string{
		"mail a@b.example":             "mail a@b.example",
		"u:p@proxy, and u:p@proxy":     "***@proxy, and ***@proxy",
		"http://u:p@proxy":             "http://***@proxy",
		"connection to proxy:3128 cut": "connection to proxy:3128 cut",
	} {
		if got := withoutPasswords(words, []string{"HOME=/root", "NO_PROXY=a.example", "ALL_PROXY=u:p@proxy", "MAIL=a@b.example"}); got != want {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
	}
}
