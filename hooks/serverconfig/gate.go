package serverconfig

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"narwharf/hooks/configfile"
	"narwharf/hooks/rollout/check"
	"narwharf/signing"
)

// Check is a section [[check]]: what is asked while a wave of a roll-out bakes.
type Check struct {
	Name       string              `toml:"name"`
	Prometheus string              `toml:"prometheus"`
	Query      string              `toml:"query"`
	Bound      string              `toml:"bound"`
	NoData     string              `toml:"no_data"`
	URL        string              `toml:"url"`
	Command    []string            `toml:"command"`
	TokenFile  string              `toml:"token_file"`
	Interval   configfile.Duration `toml:"interval"`
	Timeout    configfile.Duration `toml:"timeout"`
	Failures   int                 `toml:"failures"`
}

// FleetLock is the section [fleetlock]: machines that ask for reboot slots and are no hosts.
type FleetLock struct {
	Groups map[string]int `toml:"groups"` // how many of a group may reboot at a time
}

// CheckSet are the checks, new ones each time.
func (c *Config) CheckSet() (*check.Set, error) {
	specs := make([]check.Spec, 0, len(c.Checks))
	for i := range c.Checks {
		k := &c.Checks[i]
		if k.Failures < 0 {
			return nil, fmt.Errorf("check %s: failures %d is below 1", k.Name, k.Failures)
		}
		configfile.Abs(c.path, &k.TokenFile)
		if k.TokenFile != "" {
			if err := configfile.CheckSecret(k.TokenFile, c.AllowReadableSecrets, c.path); err != nil {
				return nil, fmt.Errorf("check %s: token_file: %w", k.Name, err)
			}
		}
		specs = append(specs, check.Spec{
			Name: k.Name, Prometheus: k.Prometheus, Query: k.Query, Bound: k.Bound, NoData: k.NoData, URL: k.URL, Command: k.Command,
			TokenFile: k.TokenFile, Interval: time.Duration(k.Interval), Timeout: time.Duration(k.Timeout), Failures: k.Failures,
		})
	}
	return check.NewSet(specs)
}

// ReloadChecks reads the checks that the file has now, for SIGHUP.
func (c *Config) ReloadChecks() (*check.Set, error) {
	fresh, err := Load(c.path)
	if err != nil {
		return nil, err
	}
	return fresh.CheckSet()
}

// checkGates checks the sections [[check]] and [fleetlock].
func (c *Config) checkGates() error {
	if _, err := c.CheckSet(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.FleetLock.Groups)) {
		if signing.CheckChannel(name) != nil { // a policy may be of the same name
			return fmt.Errorf("fleetlock.groups: %q is no group: 1 to 63 of a-z 0-9 . _ -, the first a letter or digit", name)
		}
		if n := c.FleetLock.Groups[name]; n < 1 {
			return fmt.Errorf("fleetlock.groups: %s = %d: at least one has to be able to reboot; leave a group out to refuse it", name, n)
		}
	}
	return nil
}
