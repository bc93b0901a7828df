package nixconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"narwharf/cache/state/durable"
)

// marks are the lines around what is written for a cache, with or without LAN.
func marks(url string) (begin, end string) {
	url = strings.TrimSuffix(Base(url), LAN)
	return "# narwharf use " + url + ": begin\n", "# narwharf use " + url + ": end\n"
}

// With is a text with lines for a cache, in place of those that it had.
func With(text, url string, lines []string) string {
	begin, end := marks(url)
	text = without(text, begin, end)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if len(lines) == 0 {
		return text
	}
	return text + begin + strings.Join(lines, "\n") + "\n" + end
}

func without(text, begin, end string) string {
	before, rest, found := strings.Cut("\n"+text, "\n"+begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return text
	}
	return strings.TrimPrefix(before+"\n"+after, "\n")
}

// Write puts lines for a cache into a file, and tells whether it had other ones. What it writes can be
// read by all.
func Write(file, url string, lines []string) (changed bool, err error) {
	if strings.ContainsAny(url+strings.Join(lines, ""), "\n\r#") {
		return false, errors.New("nix.conf has no way to write a line end or a number sign")
	}
	if st, err := os.Lstat(file); err == nil && !st.Mode().IsRegular() {
		return false, fmt.Errorf("%s is no regular file: what manages it should have the lines", file)
	}
	is, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	text := With(string(is), url, lines)
	if text == string(is) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return false, err
	}
	return true, durable.Write(file, []byte(text), durable.Options{Mode: 0o644, Exact: true})
}
