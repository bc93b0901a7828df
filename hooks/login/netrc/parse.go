package netrc

import (
	"bytes"
	"strings"
)

// An entry is what a file has for a machine, or for all others.
type entry struct {
	machine  string // "": default
	password string
	spans    [][2]int // where its words stand, line by line
}

// A word is one of a file, without its quotes.
type word struct {
	text       string
	start, end int
}

// words are those of a file, line by line, without comments and macros (ftp's: "macdef NAME", up to
// an empty line). macro tells whether the text ends within one.
func words(text []byte) (lines [][]word, macro bool) {
	for at := 0; at < len(text); {
		n := bytes.IndexByte(text[at:], '\n') + 1
		if n == 0 {
			n = len(text) - at
		}
		line := string(text[at : at+n])
		switch trimmed := strings.TrimSpace(line); {
		case macro:
			macro = trimmed != ""
		case strings.HasPrefix(trimmed, "#"):
		default:
			list := split(line, at)
			if len(list) > 0 && list[0].text == "macdef" {
				macro = true
				break
			}
			if len(list) > 0 {
				lines = append(lines, list)
			}
		}
		at += n
	}
	return lines, macro
}

// split cuts a line that begins at an offset into words. One in quotes may have blanks, and \" and \\.
func split(line string, offset int) (list []word) {
	for at := 0; ; {
		at += len(line[at:]) - len(strings.TrimLeft(line[at:], " \t\r\n"))
		if at == len(line) {
			return list
		}
		start := at
		var text strings.Builder
		if line[at] != '"' {
			at += strings.IndexAny(line[at:]+" ", " \t\r\n")
			text.WriteString(line[start:at])
		} else {
			for at++; at < len(line) && line[at] != '"' && line[at] != '\n'; at++ {
				if line[at] == '\\' && at+1 < len(line) {
					at++
				}
				text.WriteByte(line[at])
			}
			at = min(at+1, len(line))
		}
		list = append(list, word{text.String(), offset + start, offset + at})
	}
}

// parse finds the entries.
func parse(text []byte) (list []entry) {
	lines, _ := words(text)
	var is *entry
	value := "" // the keyword whose value is next
	for _, line := range lines {
		fresh := true // the line has no span of is yet
		for _, w := range line {
			if value == "" && (w.text == "machine" || w.text == "default") {
				list = append(list, entry{})
				is, fresh = &list[len(list)-1], true
			}
			if is == nil {
				continue
			}
			if fresh {
				is.spans = append(is.spans, [2]int{w.start, w.end})
				fresh = false
			}
			is.spans[len(is.spans)-1][1] = w.end
			switch {
			case value == "machine":
				is.machine, value = w.text, ""
			case value == "password":
				is.password, value = w.text, ""
			case value != "":
				value = ""
			case w.text == "machine", w.text == "login", w.text == "password", w.text == "account":
				value = w.text
			}
		}
	}
	return list
}

// without is a text without a machine, and where that stood first, -1 if nowhere.
func without(text []byte, machine string) ([]byte, int) {
	at := -1
	list := parse(text)
	text = bytes.Clone(text)
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].machine != machine {
			continue
		}
		for j := len(list[i].spans) - 1; j >= 0; j-- {
			start, end := list[i].spans[j][0], list[i].spans[j][1]
			for end < len(text) && (text[end] == ' ' || text[end] == '\t' || text[end] == '\r') {
				end++
			}
			line := start
			for line > 0 && (text[line-1] == ' ' || text[line-1] == '\t') {
				line--
			}
			if (line == 0 || text[line-1] == '\n') && end < len(text) && text[end] == '\n' {
				start, end = line, end+1 // the whole line
			}
			text = append(text[:start], text[end:]...)
			at = start
		}
	}
	return text, at
}

// end is where a machine may be added: before default, which has to be the last, or at the end,
// also that of a macro.
func end(text []byte) int {
	for _, e := range parse(text) {
		if e.machine == "" && len(e.spans) > 0 {
			return e.spans[0][0]
		}
	}
	if _, macro := words(text); macro {
		return 0
	}
	return len(text)
}
