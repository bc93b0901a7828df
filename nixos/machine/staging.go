package machine

import (
	"slices"
	"strconv"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

func prepared(t *turn, ev effect.Prepared) arrow {
	j, a, f := t.j, t.a, t.f
	a.Differs = ev.Differs
	j.Suspect = slices.DeleteFunc(j.Suspect, func(p narinfo.Path) bool { return slices.Contains(ev.Verified, p) })
	if ev.Err != "" {
		return stageFailed(t, ev.Err, ev.Reject)
	}
	j.Unsynced, j.UnsyncedBoot = journal.Set(j.Unsynced, ev.Missing), f.BootID
	// What an interrupted staging brought in is this attempt's too.
	a.Fetched += ev.Bytes
	a.Imported = journal.Set(a.Imported, ev.Missing)
	if t.rules.Jitter > 0 && len(ev.Missing) > 0 && !a.Jittered {
		a.Jittered, a.BootID = true, f.BootID
		a.RetryAt = f.Now + jitter(f.Random, t.rules.Jitter).Milliseconds()
		return to(journal.Jitter)
	}
	return to(journal.Realise)
}

// jitter is a part of the whole, another one on each host.
func jitter(random string, whole time.Duration) time.Duration {
	n, err := strconv.ParseUint(random[:8], 16, 64)
	if err != nil {
		return 0
	}
	return time.Duration(float64(whole) * float64(n) / (1 << 32))
}

func realised(t *turn, ev effect.Realised) arrow {
	j, a := t.j, t.a
	if ev.Err != "" {
		return stageFailed(t, ev.Err, ev.Reject)
	}
	a.Differs = ev.Differs
	a.Imported, a.Tries, a.RetryAt, a.Reason = nil, 0, 0, ""
	a.Staged, a.Asked = true, false
	j.Unsynced, j.UnsyncedBoot = nil, "" // the store was synced
	t.measure("stage", a.Began)
	return staged()
}

// staged is that all is here, and that the grant is to be asked for.
func staged() arrow { return arrow{phase: journal.Ready, state: api.Staged} }

func stageFailed(t *turn, why string, reject bool) arrow {
	a, f := t.a, t.f
	a.Reason = why
	if reject {
		t.j.Deny()
		return arrow{phase: journal.Done, state: api.Rejected, err: why}
	}
	a.Tries++
	a.BootID = f.BootID
	a.RetryAt = f.Now + backOff(a.Tries).Milliseconds()
	return arrow{phase: journal.Retry, err: why}
}

// backOff is 5 s, doubling to 5 min.
func backOff(tries int) time.Duration {
	return min(5*time.Second<<min(tries-1, 10), 5*time.Minute)
}

func retryDue(t *turn) arrow {
	stay := t.stay(api.StageFailed, nil, t.a.Reason)
	if t.a.TooEarly(t.f.Now, t.f.BootID) {
		return stay
	}
	return to(journal.Prepare)
}

func jitterOver(t *turn) arrow {
	stay := t.stay(api.Staging, nil, "")
	if t.a.TooEarly(t.f.Now, t.f.BootID) {
		return stay
	}
	t.a.RetryAt = 0
	return to(journal.Realise)
}
