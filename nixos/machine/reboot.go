package machine

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
)

// rebootRetry is after how long a reboot that did not happen is tried again.
const rebootRetry = 10 * time.Minute

func rebootText(reasons []string) string {
	if len(reasons) == 0 {
		return "the boot entry is set"
	}
	return fmt.Sprintf("the boot entry is set; a switch is not enough for: %s", List(reasons))
}

// beginReboot of an armed host.
func beginReboot(t *turn) arrow {
	a := t.a
	a.Reason, a.RetryAt = "", 0
	if t.rules.Hooks[HookPreReboot] {
		a.PostOwed = true
		return reboots(journal.PreReboot)
	}
	return reboots(journal.Reboot)
}

func reboots(p journal.Phase) arrow {
	return arrow{phase: p, waiting: &api.Waiting{Kind: api.WaitReboot, Detail: "it reboots now"}}
}

// stillUp is that the reboot did not end this boot.
func stillUp(t *turn, ev StillUp) arrow { return notRebooted(t, ev.Err, rebootRetry) }

// notRebooted is that a reboot did not come about.
func notRebooted(t *turn, why string, again time.Duration) arrow {
	t.a.Reason = why
	t.a.RetryAt = t.f.Now + again.Milliseconds()
	return finish(t, api.Armed)
}
