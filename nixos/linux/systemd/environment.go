package systemd

import (
	"context"
	"os"
	"slices"
	"strings"
)

// Environment is what the service that this process is sets of some variables, as systemd
// knows the unit now: after a switch that is the new system's. nil if it is not known.
func Environment(ctx context.Context, names []string) map[string]string {
	out, err := showOwn(ctx, "Environment,EnvironmentFiles")
	if err != nil {
		return nil
	}
	return environment(out, names, os.ReadFile)
}

// Changes are assignments that make an environment of then one of now: what is not set any
// more is empty, which means the same of names.
func Changes(names []string, then, now map[string]string) (env []string) {
	for _, name := range names {
		if value := now[name]; now != nil && value != then[name] {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// environment reads what systemctl show says of a unit, and the files that it names, which
// win (systemd.exec(5)).
func environment(show string, names []string, read func(string) ([]byte, error)) map[string]string {
	var assignments, files []string
	for line := range strings.Lines(show) {
		line = strings.TrimRight(line, "\n")
		if list, ok := strings.CutPrefix(line, "Environment="); ok {
			assignments = append(assignments, unquoted(list)...)
		} else if file, ok := strings.CutPrefix(line, "EnvironmentFiles="); ok {
			file, _, _ = strings.Cut(file, " (ignore_errors=")
			files = append(files, file)
		}
	}
	for _, file := range files {
		text, err := read(file)
		if err == nil { // otherwise a unit bears that, or did not start
			assignments = append(assignments, fileAssignments(string(text))...)
		}
	}
	set := make(map[string]string)
	for _, a := range assignments {
		if name, value, ok := strings.Cut(a, "="); ok && slices.Contains(names, name) {
			set[name] = value
		}
	}
	return set
}

// fileAssignments are those of a file of a unit's environment, without quotation marks.
func fileAssignments(text string) (list []string) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		list = append(list, strings.TrimSpace(name)+"="+value)
	}
	return list
}

// unquoted are the words of a line in which some stand in quotation marks,
// with backslashes in them.
func unquoted(line string) (list []string) {
	var word strings.Builder
	quoted, begun := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			quoted, begun = !quoted, true
		case c == '\\' && quoted && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case c == ' ' && !quoted:
			if begun {
				list = append(list, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if begun {
		list = append(list, word.String())
	}
	return list
}
