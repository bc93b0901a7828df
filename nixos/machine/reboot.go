package machine

import (
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// rebootRetry is after how long a reboot that did not happen is tried again.
const rebootRetry = 10 * time.Minute

// beginReboot of an armed host.
func beginReboot(t *turn) arrow {
	a := t.a
	a.Reason, a.RetryAt = "", 0
	if t.rules.Hooks[effect.HookPreReboot] {
		a.PostOwed = true
		return reboots(journal.PreReboot)
	}
	return reboots(journal.Reboot)
}

func reboots(p journal.Phase) arrow {
	return arrow{phase: p, waiting: &api.Waiting{Kind: api.WaitReboot, Detail: "it reboots now"}}
}

// stillUp is that the reboot did not end this boot.
func stillUp(t *turn, ev effect.StillUp) arrow { return notRebooted(t, ev.Err, rebootRetry) }

// notRebooted is that a reboot did not come about.
func notRebooted(t *turn, why string, again time.Duration) arrow {
	t.a.Reason = why
	t.a.RetryAt = t.f.Now + again.Milliseconds()
	return finish(t, api.Armed)
}
