// Package command is what the commands of narwharf are made with: how many arguments they
// take, flags that several have, and the server that most of them talk to.
package command

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
)

// New makes a command that takes from least to most arguments, any number if most is -1.
func New(use, short string, least, most int, long string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Args: func(c *cobra.Command, args []string) error {
		name := strings.TrimPrefix(c.CommandPath(), "narwharf ")
		switch {
		case len(args) < least:
			return fmt.Errorf("%s: %s is missing; it is used as\n    %s\n    (%s --help says more)", name, terminal.MissingArgument(use, len(args)), c.UseLine(), c.CommandPath())
		case most < 0 || len(args) <= most:
			return nil
		case c.Flags().Lookup("config") != nil && c.Flags().Lookup("config").Value.String() == "" && most == 0:
			return fmt.Errorf("%s takes no argument: is %q its configuration? Then it is\n    %s --config %s", name, args[0], c.CommandPath(), args[0])
		}
		return fmt.Errorf("%s: %q is too much; it is used as\n    %s", name, args[most], c.UseLine())
	}}
}

// Group is a command that others belong to.
func Group(use, short, long string, members ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long, SuggestionsMinimumDistance: 2}
	c.AddCommand(members...)
	return c
}

// ConfigFlag adds --config to a command.
func ConfigFlag(c *cobra.Command) *string {
	return c.Flags().String("config", "", "the configuration `FILE` (else $NARWHARF_CONFIG, data/config.toml, /etc/narwharf/config.toml)")
}

// IfSeq adds --if-seq. It is -1 where it is not given, which help does not show.
func IfSeq(c *cobra.Command, usage string) *int64 {
	seq := c.Flags().Int64("if-seq", -1, usage)
	c.Flags().Lookup("if-seq").DefValue = "0"
	return seq
}

// FlagError says what is wrong with a flag, and what to do about it.
func FlagError(c *cobra.Command, err error) error {
	text := notBool.ReplaceAllString(err.Error(), " is neither true nor false")
	text = parseError.ReplaceAllString(text, " is no number")
	hint := c.CommandPath() + " --help lists its flags"
	if c.Parent() == nil {
		return fmt.Errorf("%s: %s", text, hint)
	}
	if c.Name() == "serve" && strings.Contains(text, "--listen") {
		hint = `the address stands in the configuration, as listen = ["127.0.0.1:8080"] in config.toml; narwharf init --listen writes it there`
	}
	return fmt.Errorf("%s: %s: %s", strings.TrimPrefix(c.CommandPath(), "narwharf "), text, hint)
}

// What package strconv says of a truth or a number, and pflag before it.
var (
	notBool    = regexp.MustCompile(` flag: strconv\.ParseBool: parsing ".*": .*`)
	parseError = regexp.MustCompile(` flag: strconv\.\w+: parsing ".*": .*`)
)

// RequiredFlags puts what cobra says of flags that are missing into words; any other
// error stays as it is.
func RequiredFlags(c *cobra.Command, err error) error {
	list, missing := strings.CutPrefix(err.Error(), "required flag(s) ")
	if !missing {
		return err
	}
	list = strings.ReplaceAll(strings.TrimSuffix(list, " not set"), `"`, "")
	return fmt.Errorf("%s: --%s must be given; it is used as\n    %s\n    (%s --help says more)",
		strings.TrimPrefix(c.CommandPath(), "narwharf "), strings.ReplaceAll(list, ", ", " and --"), c.UseLine(), c.CommandPath())
}

// Must is for mistakes of the program that show on its first start.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// ParseAge reads a duration that may be in days.
func ParseAge(s string) (time.Duration, error) {
	var d configfile.Duration
	err := d.UnmarshalText([]byte(s))
	if err != nil && !errors.Is(err, configfile.ErrNoUnit) || err == nil && d == 0 {
		err = fmt.Errorf("%q is not a time like 12h or 90d", s)
	}
	return time.Duration(d), err
}

// ParseUntil is a time from now on, in seconds; nil for "".
func ParseUntil(until string) (*time.Time, error) {
	if until == "" {
		return nil, nil
	}
	d, err := ParseAge(until)
	if err != nil {
		return nil, fmt.Errorf("--until: %w", err)
	}
	t := time.Now().Add(d).UTC().Truncate(time.Second)
	return &t, nil
}

// NewHold is a hold that ends by itself after until, if that says something.
func NewHold(reason, by, until string) (*api.Hold, error) {
	end, err := ParseUntil(until)
	return &api.Hold{Reason: reason, By: by, Until: end}, err
}
