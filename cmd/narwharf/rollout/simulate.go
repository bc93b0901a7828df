// Package rollout is the commands about roll-outs: flags in, one call, words out.
package rollout

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/rollout/policy"
	"narwharf/hooks/rollout/simulate"
)

// Commands are all of them.
func Commands() []*cobra.Command {
	return []*cobra.Command{simulateCommand(), rolloutCommand(), planCommand(), freezeCommand(), budgetCommand(), holdCommand(), quarantineCommand()}
}

// flags of simulate.
type flags struct {
	policy, against, csv, bad string
	fail, offline             string
	download, switches, start string
	labels                    []string
	back, approve             time.Duration
	hosts, seeds              int
	seed                      uint64
	json                      bool
}

func simulateCommand() *cobra.Command {
	c := command.New("simulate", "tell beforehand how a roll-out would go", 0, 0,
		`Runs the roll-out engine with simulated hosts on a clock that is a number, and prints
what would happen when, how many hosts a bad release would reach, and how long it takes.

    narwharf simulate --policy web.json --hosts 500 --label canary=true:5 --fail 2%

The policy is that of a channel (its windows count, too). --against names another, and
both are run with the same hosts. With --seeds N there are N runs, and each number is
the middle one with the 5th and 95th percentile.

It asks no server. What a release would do to the hosts that there are tells narwharf
plan.`)
	f := new(flags)
	c.Flags().StringVar(&f.policy, "policy", "", "`FILE` with the policy, - for standard input")
	c.Flags().StringVar(&f.against, "against", "", "`FILE` with a policy to compare it with")
	c.Flags().IntVar(&f.hosts, "hosts", 100, "how many hosts there are")
	c.Flags().StringArrayVar(&f.labels, "label", nil, "`LABEL=VALUE:HOSTS`: a label of some hosts, as canary=true:3 or site=fra:25% (may be repeated)")
	c.Flags().StringVar(&f.fail, "fail", "0%", "`SHARE` of the hosts that go back by themselves")
	c.Flags().StringVar(&f.bad, "bad", "", "`SELECTOR` of hosts that all do, as role=db")
	c.Flags().StringVar(&f.offline, "offline", "0%", "`SHARE` of the hosts that are away when it begins")
	c.Flags().DurationVar(&f.back, "back", 0, "within which time those come (0: they do not)")
	c.Flags().StringVar(&f.download, "download", "20s..3m", "`TIME` of a download: nine of ten hosts lie in between")
	c.Flags().StringVar(&f.switches, "switch", "5s..30s", "`TIME` of a switch with its probation")
	c.Flags().DurationVar(&f.approve, "approve", 0, "after which time somebody says yes to a wave that asks for it")
	c.Flags().StringVar(&f.start, "start", "2026-01-05 12:00", "`TIME` at which it is promoted, in UTC, for windows")
	c.Flags().IntVar(&f.seeds, "seeds", 1, "how many runs")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "the first run's")
	c.Flags().StringVar(&f.csv, "csv", "", "`FILE` for the first run's numbers over time")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	command.Must(c.MarkFlagRequired("policy"))
	c.RunE = func(c *cobra.Command, _ []string) error { return f.run(c.InOrStdin(), c.OutOrStdout()) }
	return c
}

func (f *flags) run(in io.Reader, out io.Writer) error {
	names := []string{f.policy}
	if f.against != "" {
		names = append(names, f.against)
	}
	if f.seeds < 1 || f.seeds > 10_000 {
		return fmt.Errorf("--seeds %d is not from 1 to 10000", f.seeds)
	}
	if f.hosts > 200_000 {
		debug.SetGCPercent(40) // a million hosts in less than 2 GiB
	}
	var all []simulate.Runs
	for _, name := range names {
		s, err := f.setup(in, name)
		if err != nil {
			return err
		}
		runs, err := simulate.Repeat(s, f.seed, f.seeds)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, runs)
	}
	if f.csv != "" {
		if err := writeCSV(f.csv, all[0][0]); err != nil {
			return err
		}
	}
	switch {
	case f.json:
		return terminal.JSON(out, all)
	case len(all) == 1:
		return show(out, all[0])
	}
	return compare(out, names, all)
}

// setup is the fleet of the flags with a policy.
func (f *flags) setup(in io.Reader, name string) (*simulate.Setup, error) {
	s := &simulate.Setup{Hosts: f.hosts, Back: f.back, Approve: f.approve}
	err := readPolicy(in, name, s)
	if err == nil {
		s.Fail, err = share("--fail", f.fail)
	}
	if err == nil {
		s.Offline, err = share("--offline", f.offline)
	}
	if err == nil {
		s.Download, err = simulate.ParseSpan(f.download)
	}
	if err == nil {
		s.Switch, err = simulate.ParseSpan(f.switches)
	}
	if err == nil {
		s.Start, err = time.Parse("2006-01-02 15:04", f.start)
	}
	for i := 0; err == nil && i < len(f.labels); i++ {
		var l simulate.Label
		l, err = simulate.ParseLabel(f.labels[i])
		s.Labels = append(s.Labels, l)
	}
	if err == nil && f.bad != "" {
		s.Bad = new(policy.Selector)
		*s.Bad, err = policy.ParseSelector(f.bad)
	}
	return s, err
}

func share(flag, text string) (float64, error) {
	a, err := policy.ParseAmount(text)
	if err != nil || !a.Percent {
		return 0, fmt.Errorf("%s %q is no share like 2%%", flag, text)
	}
	return float64(a.N) / 10000, nil
}

// notSimulated are the parts of a channel's policy that a simulation has nothing for.
var notSimulated = []string{"reboot_slots", "reboot_timeout_s", "min_agent", "confirm_timeout_s", "probation_min_s"}

// readPolicy reads the policy of a channel. What it does not know it refuses.
func readPolicy(in io.Reader, name string, s *simulate.Setup) error {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(io.LimitReader(in, 1<<20))
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return err
	}
	keys := make(map[string]json.RawMessage)
	if err := json.Unmarshal(text, &keys); err != nil {
		return fmt.Errorf("%s is no policy: %w", name, err)
	}
	if windows, ok := keys["windows"]; ok {
		if err := json.Unmarshal(windows, &s.Windows); err != nil {
			return fmt.Errorf("%s: windows: %w", name, err)
		}
	}
	delete(keys, "windows")
	for _, key := range notSimulated {
		delete(keys, key)
	}
	rest, err := json.Marshal(keys)
	if err == nil {
		s.Policy, err = policy.Parse(rest)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func writeCSV(name string, r *simulate.Result) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	err = r.CSV(file)
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}

// show prints a run as it goes, and the numbers of all.
func show(out io.Writer, runs simulate.Runs) error {
	runs[0].Timeline(out)
	fmt.Fprintln(out)
	for _, row := range runs.Rows() {
		fmt.Fprintf(out, "%-22s  %s\n", row[0], row[1])
	}
	return nil
}

func compare(out io.Writer, names []string, all []simulate.Runs) error {
	return terminal.Table(out, "\t"+strings.Join(names, "\t"), func(row func(...any)) {
		other := all[1].Rows()
		for i, r := range all[0].Rows() {
			row(r[0], r[1], other[i][1])
		}
	})
}
