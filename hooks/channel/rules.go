package channel

import (
	"fmt"
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// rules works out by which keys the release must be signed, and verifies it.
// The first promote sets them; changing them takes the scope admin.
func rules(now *Snapshot, p *Promotion, head *signing.Head) (State, error) {
	next, err := nextRules(now, p)
	if err != nil {
		return next, err
	}
	if next.Origin != "" && next.Origin != head.Origin && p.RulesDenied != nil {
		return next, api.Errorf(api.Invalid, "hosts know channel %s by the origin %s, and the release says %s: promote with --origin %s; a token with the scope admin may change it, for all hosts", now.Name, next.Origin, head.Origin, next.Origin)
	}
	next.Origin = head.Origin
	keys, need, err := next.Trust()
	if err != nil {
		return next, api.Errorf(api.Invalid, "channel %s: %v", now.Name, err)
	}
	if _, err := p.Head.Open(signing.HeadKind, keys, need); err != nil {
		return next, api.Errorf(api.BadSignature, "channel %s: %v; its keys are %s", now.Name, err, strings.Join(next.Keys, ", "))
	}
	return next, nil
}

// nextRules is the channel's state with the rules that a promotion sends, if it
// may change them.
func nextRules(now *Snapshot, p *Promotion) (State, error) {
	next := now.State
	if p.Threshold < 0 || p.Threshold > len(p.Keys) {
		return next, api.Errorf(api.Invalid, "a threshold of %d does not go with %d keys", p.Threshold, len(p.Keys))
	}
	if p.Kind != "" && p.Kind != api.KindNixOS && p.Kind != api.KindPath {
		return next, api.Errorf(api.Invalid, "kind %q is neither nixos nor path", p.Kind)
	}
	sent := slices.Compact(slices.Sorted(slices.Values(p.Keys)))
	first, threshold := len(next.Keys) == 0, max(p.Threshold, 1)
	otherKeys := len(sent) > 0 && (!slices.Equal(sent, next.Keys) || threshold != next.Threshold)
	otherKind := p.Kind != "" && p.Kind != next.Kind
	switch {
	case first && len(sent) == 0:
		return next, api.Errorf(api.Invalid, "the first promote of a channel says by which keys its releases are signed: send keys (narwharf promote does)")
	case !first && (otherKeys || otherKind) && p.RulesDenied != nil:
		return next, fmt.Errorf("the keys, threshold or kind of channel %s would change: %w", now.Name, p.RulesDenied)
	}
	if otherKeys {
		next.Keys, next.Threshold = sent, threshold
	}
	if otherKind {
		next.Kind = p.Kind
	}
	if next.Kind == "" {
		next.Kind = api.KindNixOS
	}
	return next, nil
}

// good is an envelope with those signatures alone that a key of the channel made which has
// not signed the channel's release yet: one of P-256 may sign otherwise each time.
func good(now *Snapshot, e *signing.Envelope) *signing.Envelope {
	only := &signing.Envelope{Payload: e.Payload, Signatures: []signing.Signature{}}
	keys, _, err := now.State.Trust()
	if err != nil {
		return only
	}
	for _, sig := range e.Signatures {
		one := signing.Envelope{Payload: e.Payload, Signatures: []signing.Signature{sig}}
		signer := one.Signers(signing.HeadKind, keys)
		if len(signer) > 0 && len(now.Release.Release.Head.Signers(signing.HeadKind, signer))+len(only.Signers(signing.HeadKind, signer)) == 0 {
			only.Signatures = append(only.Signatures, sig)
		}
	}
	return only
}
