package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"narwharf/narinfo/clip"
	"narwharf/nixos/linux/sys"
)

// units is where a system has its units, and etc where it has its configuration once it runs.
const (
	units = "etc/systemd/system"
	etc   = "/etc"
)

// WithoutAgent says what a system lacks of the agent that the running one brings: its unit,
// that something starts it, its program, its configuration; or why that program would not start. An
// agent that comes from elsewhere stays whatever is switched to.
func (b *boot) WithoutAgent(ctx context.Context, path string) string {
	current, err := b.current()
	if err != nil || current == "" || current == path {
		return ""
	}
	gone := func(file string) bool { return b.has(current, file) && !b.has(path, file) }
	noConfig := ""
	if strings.HasPrefix(b.config, etc+"/") && gone(b.config) {
		noConfig = fmt.Sprintf("it has no %s", b.config)
	}
	switch {
	case b.unit != "" && b.has(current, units, b.unit):
	case b.unit == "" && gone("sw/bin/narwharf"):
		return "it has no sw/bin/narwharf"
	default:
		return noConfig
	}
	switch st, err := os.Stat(b.real(filepath.Join(path, units, b.unit))); {
	case err != nil:
		return fmt.Sprintf("it has no unit %s", b.unit)
	case !st.Mode().IsRegular() || st.Size() == 0: // a link to /dev/null
		return fmt.Sprintf("its unit %s is masked", b.unit)
	case b.starts(current) && !b.starts(path):
		return fmt.Sprintf("nothing in it starts %s", b.unit)
	}
	files := b.runs(path)
	for _, file := range files {
		if from, ok := b.within(path, file); ok {
			if _, err := os.Stat(b.real(from)); err != nil {
				return fmt.Sprintf("its unit %s names %s, which is not there", b.unit, file)
			}
		}
	}
	if len(files) < 2 && noConfig != "" { // nor does it name a configuration of its own
		return noConfig
	}
	return b.wouldNotStart(ctx, path, files)
}

// startPatience is how long a program may take to read its configuration.
const startPatience = 20 * time.Second

// wouldNotStart says why the agent of a system would end at once: its program does not run on this
// machine, or does not take its configuration. "" also where that cannot be known before the system
// runs.
func (b *boot) wouldNotStart(ctx context.Context, system string, files []string) string {
	if len(files) == 0 {
		return ""
	}
	config := b.config
	if len(files) > 1 {
		config = files[1]
	}
	program, known := b.within(system, files[0])
	config, ours := b.within(system, config)
	if config = b.real(config); !known || !ours || !exists(config) {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	_, words, err := sys.Run(ctx, 4096, nil, b.real(program), "agent", "status", "--config", config)
	switch {
	case err == nil || ctx.Err() != nil:
	case !errors.As(err, new(*exec.ExitError)):
		return fmt.Sprintf("its program does not run on this machine (%v)", err)
	case strings.Contains(words, config): // and not about what the agent remembers
		return "its program does not take its configuration: " + clip.Text(words, 1000)
	}
	return ""
}

// has tells whether a system has a file.
func (b *boot) has(system string, names ...string) bool {
	_, err := os.Stat(b.real(filepath.Join(append([]string{system}, names...)...)))
	return err == nil
}

// starts tells whether a system starts the agent's unit: a target wants it, or a timer or the
// like is there for it.
func (b *boot) starts(system string) bool {
	stem := strings.TrimSuffix(b.unit, ".service")
	for _, pattern := range []string{"*.wants/" + b.unit, "*.requires/" + b.unit, "*.upholds/" + b.unit, stem + ".timer", stem + ".path", stem + ".socket"} {
		if found, _ := filepath.Glob(b.real(filepath.Join(system, units, pattern))); len(found) > 0 { // the patterns are well formed
			return true
		}
	}
	return false
}

// runs are the program of the agent's unit in a system, and the configuration that it is
// given, as the unit and its drop-ins say (systemd.service(5)).
func (b *boot) runs(system string) (files []string) {
	unit := b.real(filepath.Join(system, units, b.unit))
	dropIns, _ := filepath.Glob(unit + ".d/*.conf") // the pattern is well formed
	for _, name := range append([]string{unit}, dropIns...) {
		text, _ := os.ReadFile(name) // what cannot be read says nothing
		for line := range strings.Lines(string(text)) {
			command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=")
			words := strings.Fields(command)
			if !ok {
				continue
			}
			if files = nil; len(words) == 0 {
				continue
			}
			files = append([]string{strings.TrimLeft(words[0], "@-:+!|")}, configs(words[1:])...)
		}
	}
	return slices.DeleteFunc(files, func(f string) bool { return !filepath.IsAbs(f) || strings.ContainsAny(f, "%$\"'\\") })
}

// configs are the files that arguments give as the configuration.
func configs(words []string) (files []string) {
	for i, w := range words {
		if file, ok := strings.CutPrefix(w, "--config="); ok {
			files = append(files, file)
		} else if w == "--config" && i+1 < len(words) {
			files = append(files, words[i+1])
		}
	}
	return files
}

// within is where a file will be once a system runs. Of what is neither in the store nor of
// the system nothing is known.
func (b *boot) within(system, file string) (string, bool) {
	if rest, ok := strings.CutPrefix(file, b.runDir+"/current-system/"); ok {
		return filepath.Join(system, rest), true
	}
	if strings.HasPrefix(file, etc+"/") {
		current, _ := b.current() // it could be read a moment ago
		return filepath.Join(system, file), b.has(current, file) || !exists(file)
	}
	return file, strings.HasPrefix(file, b.storeDir+"/")
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
