package linux

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/nixos/effect"
)

// files makes a tree; what begins with "-> " is a link.
func files(t *testing.T, root string, tree map[string]string) {
	t.Helper()
	for name, text := range tree {
		name = filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			err = errors.Join(err, os.Symlink(to, name))
		} else {
			err = errors.Join(err, os.WriteFile(name, []byte(text), 0o755))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What a system lacks of the agent that runs: nothing is to be found out at its next boot.
func TestWithoutAgent(t *testing.T) {
	const unit = "etc/systemd/system/narwharf.service"
	agent := map[string]string{
		unit: "[Service]\nExecStart=@STORE@/narwharf/bin/narwharf agent run --config /etc/narwharf/agent.toml\n",
		"etc/systemd/system/multi-user.target.wants/narwharf.service": "-> ../narwharf.service",
		"etc/narwharf/agent.toml":                                     "x", "sw/bin/narwharf": "#!/bin/sh\n",
	}
	for name, c := range map[string]struct {
		change map[string]string // of the next system; "" is that the file is gone
		unit   string            // of the agent; "-": it is no service
		says   string
	}{
		"all of it":                  {},
		"the unit is gone":           {change: map[string]string{unit: ""}, says: "it has no unit narwharf.service"},
		"unit and program":           {change: map[string]string{unit: "", "sw/bin/narwharf": ""}, says: "it has no unit narwharf.service"},
		"all but the unit":           {change: map[string]string{"etc/narwharf/agent.toml": "", "sw/bin/narwharf": ""}, says: "names /etc/narwharf/agent.toml, which is not there"},
		"all is gone":                {change: map[string]string{unit: "", "etc/narwharf/agent.toml": "", "sw/bin/narwharf": ""}, says: "it has no unit"},
		"masked":                     {change: map[string]string{unit: "-> /dev/null"}, says: "is masked"},
		"nobody wants it":            {change: map[string]string{"etc/systemd/system/multi-user.target.wants/narwharf.service": ""}, says: "nothing in it starts narwharf.service"},
		"a timer wants it":           {change: map[string]string{"etc/systemd/system/multi-user.target.wants/narwharf.service": "", "etc/systemd/system/narwharf.timer": "x"}},
		"another target wants it":    {change: map[string]string{"etc/systemd/system/multi-user.target.wants/narwharf.service": "", "etc/systemd/system/network.target.requires/narwharf.service": "x"}},
		"its program is gone":        {change: map[string]string{unit: "[Service]\nExecStart=@STORE@/gone/bin/narwharf agent run\n"}, says: "gone/bin/narwharf, which is not there"},
		"of the system, and gone":    {change: map[string]string{unit: "[Service]\nExecStart=-@RUN@/current-system/sw/bin/narwharf agent run\n", "sw/bin/narwharf": ""}, says: "sw/bin/narwharf, which is not there"},
		"of the system":              {change: map[string]string{unit: "[Service]\nExecStart=@RUN@/current-system/sw/bin/narwharf agent run\n"}},
		"a drop-in, another file":    {change: map[string]string{unit + ".d/a.conf": "[Service]\nExecStart=\nExecStart=@STORE@/narwharf/bin/narwharf agent run --config=@STORE@/none.toml\n"}, says: "none.toml, which is not there"},
		"the file is elsewhere":      {change: map[string]string{unit: "[Service]\nExecStart=@STORE@/narwharf/bin/narwharf agent run --config @STORE@/a.toml\n", "etc/narwharf/agent.toml": ""}},
		"a script starts it":         {change: map[string]string{unit: "[Service]\nExecStart=@STORE@/narwharf/bin/narwharf\n", "etc/narwharf/agent.toml": ""}, says: "it has no /etc/narwharf/agent.toml"},
		"an agent from elsewhere":    {change: map[string]string{unit: "", "sw/bin/narwharf": ""}, unit: "own.service"},
		"another machine's program":  {change: map[string]string{unit: "[Service]\nExecStart=@STORE@/foreign agent run\n"}, says: "does not run on this machine"},
		"a damaged configuration":    {change: map[string]string{"etc/narwharf/agent.toml": "channel = \n"}, says: "does not take its configuration: narwharf: @STORE@/next/etc/narwharf/agent.toml: line 1"},
		"one elsewhere, damaged":     {change: map[string]string{unit: "[Service]\nExecStart=@STORE@/narwharf/bin/narwharf agent run --config @STORE@/bad.toml\n"}, says: "does not take its configuration"},
		"it fails for other reasons": {change: map[string]string{"etc/narwharf/agent.toml": "journal"}},
		"cron, program gone":         {change: map[string]string{unit: "", "sw/bin/narwharf": ""}, unit: "-", says: "it has no sw/bin/narwharf"},
		"cron, configuration gone":   {change: map[string]string{"etc/narwharf/agent.toml": ""}, unit: "-", says: "it has no /etc/narwharf/agent.toml"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store, run := filepath.Join(dir, "store"), filepath.Join(dir, "run")
			old, next := filepath.Join(store, "old"), filepath.Join(store, "next")
			where := strings.NewReplacer("@STORE@", store, "@RUN@", run)
			system := map[string]string{}
			for file, text := range agent {
				system[file] = where.Replace(text)
			}
			files(t, old, system)
			for file, text := range c.change {
				if system[file] = where.Replace(text); text == "" {
					delete(system, file)
				}
			}
			files(t, next, system)
			// It says as narwharf does what it makes of the configuration, its fourth argument.
			program := "#!/bin/sh\ncase \"$1 $2 $(cat \"$4\")\" in 'agent status channel ='*) echo \"narwharf: $4: line 1\" >&2; exit 2;; *journal) echo 'of a newer agent' >&2; exit 2;; esac\n"
			files(t, store, map[string]string{"narwharf/bin/narwharf": program, "foreign": "\x7fELF", "a.toml": "x", "bad.toml": "channel = \n", "next/nixos-version": "1"})
			files(t, run, map[string]string{"current-system": "-> " + old})
			b := &boot{systems: systems{storeDir: store, runDir: run}, unit: strings.TrimPrefix(c.unit, "-"), config: "/etc/narwharf/agent.toml"}
			if c.unit == "" {
				b.unit = "narwharf.service"
			}
			got, c := b.WithoutAgent(context.Background(), next), c
			c.says = where.Replace(c.says)
			if (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
				t.Errorf("%q, want … %s …", got, c.says)
			}
			if got := b.WithoutAgent(context.Background(), old); got != "" {
				t.Errorf("the running one: %q", got)
			}
		})
	}
}

// What people make of the profile is a fact, and no error.
func TestProfileFacts(t *testing.T) {
	for name, c := range map[string]struct {
		tree                  map[string]string
		link, profile, faulty string
		generation            int64
	}{
		"none":                 {tree: map[string]string{"x": ""}},
		"a generation":         {tree: map[string]string{"system": "-> system-7-link", "system-7-link": "-> /nix/store/a"}, link: "system-7-link", profile: "/nix/store/a", generation: 7},
		"by its whole name":    {tree: map[string]string{"system": "-> @DIR@/system-7-link", "system-7-link": "-> /nix/store/a"}, link: "system-7-link", profile: "/nix/store/a", generation: 7},
		"a link to the system": {tree: map[string]string{"system": "-> /nix/store/a", "system-7-link": "-> /nix/store/b"}, profile: "/nix/store/a", faulty: "not to one of its generations"},
		"through other links":  {tree: map[string]string{"system": "-> result", "result": "-> /nix/store/a"}, profile: "/nix/store/a", faulty: "not to one of its generations"},
		"its generation gone":  {tree: map[string]string{"system": "-> system-7-link", "system-6-link": "-> /nix/store/b"}, faulty: "is the generation system-7-link, which is gone"},
		"to nowhere":           {tree: map[string]string{"system": "-> nowhere"}, faulty: "not to one of its generations"},
		"another profile's":    {tree: map[string]string{"system": "-> other-3-link", "other-3-link": "-> /nix/store/a"}, profile: "/nix/store/a", faulty: "not to one of its generations"},
		"in a circle":          {tree: map[string]string{"system": "-> other", "other": "-> system"}, faulty: "not to one of its generations"},
		"to itself":            {tree: map[string]string{"system": "-> system"}, faulty: "not to one of its generations"},
		"no link as its own":   {tree: map[string]string{"system": "-> system-7-link", "system-7-link/x": ""}, faulty: "is the generation system-7-link, which is no link"},
		"a folder":             {tree: map[string]string{"system/x": ""}, faulty: "is no link"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.tree {
				c.tree[file] = strings.ReplaceAll(text, "@DIR@", dir)
			}
			files(t, dir, c.tree)
			var f effect.Facts
			if err := (profile{filepath.Join(dir, "system")}).facts(&f, systems{storeDir: "/nix/store"}); err != nil {
				t.Fatal(err)
			}
			if f.ProfileLink != c.link || f.Profile != c.profile || f.Generation != c.generation || (f.ProfileFault == "") != (c.faulty == "") || !strings.Contains(f.ProfileFault, c.faulty) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestSpecialisations(t *testing.T) {
	dir := t.TempDir()
	files(t, dir, map[string]string{
		"store/p/nixos-version": "1", "store/p/specialisation/x": "-> " + dir + "/store/px", "store/p/specialisation/y": "-> " + dir + "/store/py",
		"store/p/specialisation/broken": "-> nowhere", "store/p/specialisation/README": "x", "store/q/nixos-version": "1",
	})
	s := systems{storeDir: dir + "/store"}
	if got, want := s.specialisations(dir+"/store/p"), map[string]string{"x": dir + "/store/px", "y": dir + "/store/py"}; !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := s.specialisations(dir + "/store/q"); len(got) != 0 {
		t.Errorf("a system without: %q", got)
	}
}
