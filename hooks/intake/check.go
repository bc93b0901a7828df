package intake

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"narwharf/hooks/api"
	"narwharf/signing"
)

var grammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,126}$`)

// CheckName refuses what is no name of a host.
func CheckName(name string) error {
	if !grammar.MatchString(name) {
		return api.Errorf(api.BadRequest, "%q is not a host name", name)
	}
	return nil
}

// CheckStatus refuses what cannot be true, however it was arrived at.
func CheckStatus(st *api.Status) error {
	if err := signing.CheckChannel(st.Channel); err != nil {
		return err
	}
	if err := signing.CheckTarget(st.Target); err != nil {
		return err
	}
	switch {
	case st.StartID <= 0 || st.Counter <= 0:
		return errors.New("start_id and counter are missing: reports are ordered by them")
	case !slices.Contains(api.States, st.State):
		return fmt.Errorf("state %q is not one of the agent's states", st.State)
	case st.BootID == "":
		return errors.New("boot_id is missing")
	case CheckSelf(SelfOf(st)) != nil:
		return errors.New("instance is not 32 hex digits, or machine or boot_id is longer than 64 characters")
	case st.DirectiveSerial < 0 || st.DirectiveSerial > api.MaxSerial:
		return fmt.Errorf("directive_serial %d is not from 0 to %d", st.DirectiveSerial, int64(api.MaxSerial))
	}
	return checkSystems(st)
}

// checkSystems refuses a state that does not go with the systems of the host.
func checkSystems(st *api.Status) error {
	switch {
	case st.State == api.OK && st.Wanted == "":
		return errors.New("state ok, and wanted is missing: which system is it that is ok?")
	case st.State == api.OK && st.Current != st.Wanted:
		return fmt.Errorf("state ok, but current is %s and wanted is %s", st.Current, st.Wanted)
	case st.State == api.Testing && st.Current != st.Wanted:
		return fmt.Errorf("state testing, but current is %s and wanted is %q", st.Current, st.Wanted)
	case st.State == api.Armed && st.Profile != st.Wanted:
		return fmt.Errorf("state armed, but the profile is %s and wanted is %q", st.Profile, st.Wanted)
	case st.State == api.OK && st.Action != string(signing.Test) && st.Profile != st.Wanted:
		return fmt.Errorf("state ok, but the profile is %s and wanted is %s", st.Profile, st.Wanted)
	case st.State == api.Reverted && st.Wanted != "" && st.Current == st.Wanted:
		return fmt.Errorf("state reverted, but current is still %s", st.Current)
	}
	return nil
}

// SelfOf is which machine a report is of.
func SelfOf(st *api.Status) api.Self {
	return api.Self{Instance: st.Instance, Machine: st.Machine, BootID: st.BootID}
}

// CheckSelf refuses what no agent says of its machine.
func CheckSelf(self api.Self) error {
	if self.Instance != "" && !api.ValidInstance(self.Instance) {
		return api.Errorf(api.BadRequest, "instance %q is not 32 hex digits", self.Instance)
	}
	if len(self.Machine) > 64 || len(self.BootID) > 64 {
		return api.Errorf(api.BadRequest, "machine and boot have 64 characters at most")
	}
	return nil
}

// CheckJoin refuses what no machine sends.
func CheckJoin(j *api.Join) error {
	switch err := CheckSelf(api.Self{Instance: j.Instance, Machine: j.Machine}); {
	case !grammar.MatchString(j.Host) && (j.Host != "" || j.Proof == nil):
		return api.Errorf(api.BadRequest, "host %q is not a host name", j.Host)
	case j.Instance == "":
		return api.Errorf(api.BadRequest, "instance is missing")
	case err != nil:
		return err
	}
	if err := signing.CheckChannel(j.Channel); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	return nil
}

const maxLabels = 64

var labelGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,62}$`)

// Relabel is a host's labels after a change, in a map of its own.
func Relabel(old map[string]string, change map[string]*string) (map[string]string, error) {
	next := maps.Clone(old)
	if next == nil {
		next = make(map[string]string)
	}
	for name, value := range change {
		switch {
		case value == nil:
			delete(next, name)
		case !labelGrammar.MatchString(name):
			return nil, api.Errorf(api.BadRequest, "%q is not the name of a label: letters, digits, . _ - and /, 63 at most", name)
		case len(*value) > 256 || strings.ContainsFunc(*value, unicode.IsControl):
			return nil, api.Errorf(api.BadRequest, "the value of the label %s is longer than 256 bytes or has control characters in it", name)
		default:
			next[name] = *value
		}
	}
	if len(next) > maxLabels {
		return nil, api.Errorf(api.BadRequest, "%d labels are more than %d", len(next), maxLabels)
	}
	return next, nil
}
