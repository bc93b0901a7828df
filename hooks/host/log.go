package host

import (
	"context"
	"regexp"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
)

const (
	maxLog      = 256 << 10 // bytes kept of one attempt
	logsPerHost = 5
	logBucket   = "hooks/log"
	// MaxLog bounds what is read of a log, of which the end is kept.
	MaxLog = 4 * maxLog
)

var attemptGrammar = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,64}$`)

// CheckAttempt refuses what is no id of an attempt.
func CheckAttempt(attempt string) error {
	if !attemptGrammar.MatchString(attempt) {
		return api.Errorf(api.BadRequest, "add ?attempt=ID")
	}
	return nil
}

func logKey(host, attempt string) string { return host + "\x00" + attempt }

// PutLog keeps the end of what an attempt printed, of a host that has reported: a log makes none.
func (h *Hosts) PutLog(ctx context.Context, host, attempt string, text []byte) error {
	if len(text) > maxLog {
		text = append([]byte("[the beginning was cut off]\n"), text[len(text)-maxLog:]...)
	}
	key := logKey(host, attempt)
	return h.set.Update(ctx, []string{"log:" + host}, func(tx *mirror.Tx) error {
		if h.In(tx, host) == nil {
			return Unknown(host)
		}
		list, err := tx.List(logBucket, state.Prefix(logKey(host, "")))
		// Attempt ids begin with the time, so the first keys are the oldest.
		for ; len(list) >= logsPerHost && list[0].Key != key; list = list[1:] {
			tx.Keep(tx.Delete(logBucket, list[0].Key))
		}
		tx.Keep(tx.Put(logBucket, key, text))
		tx.Notify(audit.Log(host))
		return err
	})
}

// Log is what an attempt printed, the last one if none is named.
func (h *Hosts) Log(host, attempt string) (text []byte, err error) {
	err = h.set.View(func(tx state.Reader) error {
		if attempt != "" {
			text, err = tx.Get(logBucket, logKey(host, attempt))
			return err
		}
		r := state.Prefix(logKey(host, ""))
		r.Reverse, r.Limit = true, 1
		list, err := tx.List(logBucket, r)
		if len(list) > 0 {
			text = list[0].Value
		}
		return err
	})
	if err == nil && text == nil {
		err = api.Errorf(api.NotFound, "there is no such log of %s", host)
	}
	return text, err
}
