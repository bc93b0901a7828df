package signing

import (
	"slices"

	"narwharf/narinfo"
)

// SignInfo returns the signatures of i together with one by each of keys over
// i's fingerprint, sorted and unique. i itself is not changed, so an Info that
// several requests share can be signed. Signatures that i has are kept, also
// those of a key name that signs now: two keys may have one name.
//
// An Info without NarHash or NarSize gets no signature, as Nix refuses to sign
// one: it would vouch for nothing.
func SignInfo(i *narinfo.Info, keys []SecretKey) []string {
	sigs := slices.Clone(i.Sigs)
	if !i.NarHash.IsZero() && i.NarSize > 0 {
		msg := i.AppendFingerprint(nil)
		for _, k := range keys {
			sigs = append(sigs, k.Sign(msg))
		}
	}
	slices.Sort(sigs)
	return slices.Compact(sigs)
}
