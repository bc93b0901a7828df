package closure

import (
	"strings"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// CheckSystems sees to it that what hosts are told to switch to is a NixOS
// system of the kind that the entry says.
func (c *Closures) CheckSystems(entries []signing.Entry) error {
	checked := make(map[string]string) // store path -> system
	for _, e := range entries {
		system, ok := checked[e.StorePath]
		if !ok {
			root, err := e.Path()
			if err != nil {
				return err
			}
			names := []string{"nixos-version", "bin/switch-to-configuration", "system"}
			files, err := c.cache.Peek(root.Hash(), names, 4096)
			if err != nil {
				return err
			}
			for _, name := range names {
				if _, ok := files[name]; !ok {
					return api.Errorf(api.NotASystem, "%s (target %s) is not a NixOS system: it has no %s; promote system.build.toplevel, or make the channel one of --kind path", e.StorePath, e.Target, name)
				}
			}
			system = strings.TrimSpace(string(files["system"]))
			checked[e.StorePath] = system
		}
		if system != e.System {
			return api.Errorf(api.NotASystem, "%s (target %s) is a system for %q, the entry says %q", e.StorePath, e.Target, system, e.System)
		}
	}
	return nil
}
