package desired

import (
	"cmp"
	"net/url"
	"strconv"

	"narwharf/hooks/api"
	"narwharf/hooks/intake"
	"narwharf/signing"
)

// Wanted is what an agent's poll asks about.
type Wanted struct {
	Channel, Target string
	Have            api.Have
	Self            api.Self
}

// ReadWanted reads the query of a host's poll, whose channel was looked at with its right.
func ReadWanted(q url.Values, name string) (w Wanted, err error) {
	w.Channel, w.Target = q.Get("channel"), cmp.Or(q.Get("target"), name)
	if err := signing.CheckTarget(w.Target); err != nil {
		return w, api.Errorf(api.BadRequest, "%v", err)
	}
	if w.Have.Seq, err = number(q, "seq", "is no seq"); err == nil {
		w.Have.Keys, err = number(q, "keys", "is no version of keys")
	}
	if err == nil {
		w.Self, err = ReadSelf(q)
	}
	return w, err
}

// ReadSelf is which machine a poll or log is of.
func ReadSelf(q url.Values) (api.Self, error) {
	self := api.Self{Instance: q.Get("instance"), Machine: intake.Clean(q.Get("machine"), 1<<10), BootID: intake.Clean(q.Get("boot"), 1<<10)}
	return self, intake.CheckSelf(self)
}

// number is what an agent says that it knows; -1: it does not say.
func number(q url.Values, name, wrong string) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, api.Errorf(api.BadRequest, "?%s=%s %s", name, text, wrong)
	}
	return n, nil
}
