// Package promote is the commands that make releases: flags in, one call, words out.
package promote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/hooks/api"
	"narwharf/hooks/promoter"
)

// Commands are all but refresh, which is one of narwharf channel.
func Commands() []*cobra.Command {
	return []*cobra.Command{promoteCommand(), rollbackCommand(), signCommand()}
}

func promoteCommand() *cobra.Command {
	c := command.New("promote CHANNEL PATH | CHANNEL TARGET=PATH…", "point a channel at new systems: the roll-out", 1, -1,
		`Makes, signs and sends the next release of a channel. The closures must be in
the server's cache already (nix copy), byte for byte what this machine has.

    narwharf promote web ./result                 one system for all hosts
    narwharf promote prod web-1=./a web-2=./b     one for each host
    narwharf promote prod --targets hosts.json    {"web-1": "/nix/store/…", …}
    narwharf promote prod ./release               a folder of links to systems
    narwharf promote prod --set web-1=./a         as the last release, but this

With --out FILE the release is written and not sent; others add signatures with
narwharf sign, and narwharf promote CHANNEL --envelope FILE sends it.`)
	f := AddFlags(c)
	fl := c.Flags()
	fl.StringVar(&f.targets, "targets", "", "`FILE` of JSON, from target to store path; - for stdin")
	fl.StringSliceVar(&f.set, "set", nil, "`TARGET=PATH` to change in the last release; may be repeated")
	fl.StringVar((*string)(&f.options.Action), "action", "auto", "what hosts do: auto (switch; where a reboot is needed, that by the policy's reboot_slots, else by a person), switch, boot, test, dry-activate, reboot")
	fl.BoolVar(&f.options.Last, "last", false, "hosts take the system also where it is without the agent, and then follow no more")
	fl.BoolVar(&f.options.FromCache, "from-cache", false, "compute the closures from the cache's narinfos, which --content-key must have signed")
	fl.BoolVar(&f.options.Adopt, "adopt", false, "where the cache has other bytes, take them if --content-key signed them")
	fl.StringSliceVar(&f.contentKeys, "content-key", nil, "public `KEY` or file that vouches for bytes; may be repeated (else client.toml)")
	fl.StringVar(&f.out, "out", "", "write the release to `FILE` instead of sending it")
	fl.StringVar(&f.envelope, "envelope", "", "send the release in `FILE`")
	fl.StringVar(&f.options.StoreRoot, "store-root", "", "prefix of the local store, as in Nix's local?root=")
	fl.StringVar(&f.options.StoreDir, "store-dir", "/nix/store", "directory of store paths")
	fl.StringVar(&f.options.System, "system", "", "`SYSTEM` of paths that do not say it themselves (default: this machine's)")
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := f.Promoter(c, args[0])
		if err != nil {
			return err
		}
		defer f.bar.End()
		if f.envelope != "" {
			if len(args) > 1 || len(f.set) > 0 || f.targets != "" || f.options.Seq != nil {
				return errors.New("--envelope sends what is in the file: it goes with no paths and no --seq")
			}
			file, err := promoter.ReadFile(f.envelope)
			if err != nil {
				return err
			}
			return f.sendBy(c, p, func() (*api.Promoted, error) { return p.SendFile(c.Context(), file) })
		}
		r, err := f.build(c, p, args[1:])
		return f.Send(c, p, r, err)
	}
	return c
}

// build makes the release of what was typed.
func (f *Flags) build(c *cobra.Command, p *promoter.Promoter, args []string) (*promoter.Release, error) {
	ctx := c.Context()
	switch {
	case len(f.set) > 0 && (len(args) > 0 || f.targets != ""):
		return nil, errors.New("--set changes targets of the last release: it goes with no other paths")
	case f.targets != "" && len(args) > 0:
		return nil, errors.New("--targets names all paths: it goes with no others")
	case len(f.set) > 0:
		paths, err := pairs("--set", "TARGET=PATH", f.set)
		if err != nil {
			return nil, err
		}
		return p.Change(ctx, paths)
	case f.targets != "":
		paths, err := readTargets(f.targets, c.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("--targets: %w", err)
		}
		return p.Build(ctx, paths)
	case len(args) == 0:
		return nil, errors.New("say what to promote: a path, TARGET=PATH, --targets or --set")
	case len(args) == 1 && !strings.Contains(args[0], "="):
		return p.BuildPath(ctx, args[0])
	}
	paths, err := pairs("", "TARGET=PATH", args)
	if err != nil {
		return nil, err
	}
	return p.Build(ctx, paths)
}

func readTargets(file string, stdin io.Reader) (paths map[string]string, err error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	if err := json.NewDecoder(stdin).Decode(&paths); err != nil {
		return nil, fmt.Errorf("not JSON of the form {\"host\": \"/nix/store/…\"}: %w", err)
	}
	return paths, nil
}

// pairs reads values of the form K=V. Of a flag the last one of a key counts, and
// arguments have each once.
func pairs(flag, form string, values []string) (map[string]string, error) {
	var m map[string]string
	for _, kv := range values {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("%s is not of the form %s", strings.TrimSpace(fmt.Sprintf("%s %q", flag, kv)), form)
		}
		if _, twice := m[k]; twice && flag == "" {
			return nil, fmt.Errorf("target %s is there twice", k)
		}
		if m == nil {
			m = make(map[string]string)
		}
		m[k] = v
	}
	return m, nil
}
