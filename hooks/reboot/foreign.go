package reboot

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"narwharf/signing"
)

// Machines that are no hosts hold slots, too: those that ask by FleetLock. Their rows stand
// among those of hosts, under a name that no host can have, so that they are counted with them.
const foreign = "fleetlock/"

// Foreign is the name under which the slot of a machine stands that is no host.
func Foreign(id string) string { return foreign + id }

// IsForeign is the id of a machine that is no host, by the name of its slot.
func IsForeign(name string) (id string, ok bool) { return strings.CutPrefix(name, foreign) }

var idGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:@-]{0,127}$`)

// CheckID says what is wrong with the id of a machine that is no host.
func CheckID(id string) error {
	if !idGrammar.MatchString(id) {
		return fmt.Errorf("id %q is not 1 to 128 letters, digits and . _ : @ -, the first a letter or digit", id[:min(len(id), 128)])
	}
	return nil
}

// CheckGroup says what is wrong with the group of such a machine. It is named as a channel is,
// and often is one.
func CheckGroup(name string) error {
	if signing.CheckChannel(name) != nil {
		return fmt.Errorf("group %q is not 1 to 63 of a-z 0-9 . _ -, the first a letter or digit", name[:min(len(name), 63)])
	}
	return nil
}

// alarmForeign is the text of the alarm of a slot that a machine holds for too long of which
// nothing else is known.
func alarmForeign(id string, sl *Slot, now time.Time) string {
	return fmt.Sprintf("the machine %s was let reboot %s ago (FleetLock) and has not said since that it is in its steady state; it keeps its slot of the group %s until it does, or narwharf reboots free %[3]s %[1]s",
		id, now.Sub(sl.Granted).Round(time.Second), sl.Group)
}

// who is how events name the holder of a slot: hosts by their names, others in their data.
func who(name string, sl *Slot) (host, called string, data map[string]string) {
	data = map[string]string{"group": sl.Group}
	if id, ok := IsForeign(name); ok {
		data["id"] = id
		return "", "the machine " + id, data
	}
	return name, name, data
}
