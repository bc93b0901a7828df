package nixos_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/machine"
	"narwharf/nixos/sim"
	"narwharf/signing"
	"narwharf/signing/keyring"
)

// channelKeys makes statements about the keys of the simulated channel.
type channelKeys struct {
	t    *testing.T
	base keyring.Base
	all  []*signing.Envelope // statements
}

func newChannelKeys(t *testing.T, rules machine.Rules) *channelKeys {
	r := rules.Trust
	return &channelKeys{t: t, base: keyring.Base{Origin: r.Origin, Channel: r.Channel, Keys: r.Keys, Threshold: r.Threshold, Recovery: rules.Recovery}}
}

func (c *channelKeys) add(keys []signing.SecretKey, signers ...signing.SecretKey) *signing.Envelope {
	c.t.Helper()
	var public []signing.PublicKey
	for _, k := range keys {
		public = append(public, k.Public())
	}
	k := keyring.Walk(c.base, c.all, nil).Next(c.base, public, 1)
	k.Created = sim.Created
	e, err := k.Seal()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, s := range signers {
		e.Sign(keyring.KeysKind, s)
	}
	c.all = append(c.all, e)
	return e
}

func (c *channelKeys) revoke(by signing.SecretKey, keys ...signing.SecretKey) *signing.Envelope {
	c.t.Helper()
	r := keyring.Walk(c.base, c.all, nil)
	v := &keyring.Revocation{Origin: c.base.Origin, Channel: c.base.Channel, Version: r.Version, Digest: r.Digest, Reason: "stolen", Created: sim.Created}
	for _, k := range keys {
		v.Keys = append(v.Keys, k.Public().String())
	}
	e, err := v.Seal()
	if err != nil {
		c.t.Fatal(err)
	}
	e.Sign(keyring.RevocationKind, by)
	return e
}

func makeKey(t *testing.T, name string) signing.SecretKey {
	t.Helper()
	k, err := signing.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signedBy is a release by a key, made under a version of the channel's keys.
func signedBy(key signing.SecretKey, seq int64, path string, version int64) *api.Desired {
	h := head(seq)
	h.KeysVersion = version
	p := (&sim.Promoter{Key: key}).PointerOf(h, signing.Entry{Target: signing.Everyone, StorePath: path, Closure: sim.Manifest(path).Digest(), System: sim.Machine, Action: signing.Auto})
	return &api.Desired{Channel: sim.Channel, Seq: seq, Pointer: p, Grant: &api.Grant{Seq: seq, Lease: 900, ID: "g"}}
}

// runs drives a host with rules until it is at rest.
func runs(t *testing.T, w *sim.World, rules machine.Rules, want api.State, words string) {
	t.Helper()
	if _, err := w.Drive(rules, 60, nil); err != nil && !errors.Is(err, sim.ErrTurns) { // what is staged and refused waits for what comes
		t.Fatal(err, tail(w.Trace))
	}
	if s := w.Acks[len(w.Acks)-1]; s.State != want || !strings.Contains(s.Error, words) {
		t.Errorf("%s: %q; want %s: %q", s.State, s.Error, want, words)
	}
}

// TestKeysAreWalked: a host that was off through two rotations follows the statements to the
// key that signs now, and never goes back; what is withheld from it is an alarm.
func TestKeysAreWalked(t *testing.T) {
	w := world(t, sim.System{})
	w.Add(&sim.System{Path: pathC})
	rules := w.Keys.Rules()
	alice, bob, carol := w.Keys.Key, makeKey(t, "bob-1"), makeKey(t, "carol-1")
	c := newChannelKeys(t, rules)
	first := c.add([]signing.SecretKey{alice, bob}, alice)
	second := c.add([]signing.SecretKey{carol}, bob, carol)

	show := func(d *api.Desired, statements ...*signing.Envelope) {
		d.Keys = statements
		w.Wants = d
	}
	show(signedBy(carol, 2, pathB, 2))
	runs(t, w, rules, api.Rejected, "signatures are good")
	show(signedBy(alice, 2, pathB, 2))
	runs(t, w, rules, api.Rejected, "a statement is withheld")
	show(signedBy(bob, 2, pathB, 2), first)
	runs(t, w, rules, api.Rejected, "leads to version 1: a statement is withheld")
	if s := w.Acks[len(w.Acks)-1]; s.KeysVersion != 1 {
		t.Errorf("it reports version %d", s.KeysVersion)
	}
	show(signedBy(carol, 2, pathB, 2), second)
	runs(t, w, rules, api.OK, "")
	if w.Current != pathB {
		t.Errorf("it runs %s", w.Current)
	}
	// A server that shows nothing of it leads nobody back.
	show(signedBy(alice, 3, pathC, 0))
	runs(t, w, rules, api.Rejected, "signatures are good")
	show(signedBy(alice, 3, pathC, 0), first)
	runs(t, w, rules, api.Rejected, "signatures are good")
	// Neither does an older configuration, but for one that says that it is the newer.
	rules.Trust.Keys, rules.KeysVersion = []signing.PublicKey{bob.Public()}, 1
	show(signedBy(bob, 3, pathC, 1))
	runs(t, w, rules, api.Rejected, "signatures are good")
	rules.KeysVersion = 2
	runs(t, w, rules, api.OK, "")
	// The way through both is kept for a configuration of before.
	rules = w.Keys.Rules()
	show(signedBy(alice, 4, pathB, 0))
	runs(t, w, rules, api.Rejected, "signatures are good")
	show(signedBy(carol, 4, pathB, 2))
	runs(t, w, rules, api.OK, "")
}

// TestRevokedKeyOnHosts: a recovery key takes a promoter's key out at once, also for what is
// staged; it promotes nothing, and what was accepted once stays.
func TestRevokedKeyOnHosts(t *testing.T) {
	w := world(t, sim.System{})
	w.Add(&sim.System{Path: pathC})
	rec, bob := makeKey(t, "recovery-1"), makeKey(t, "bob-1")
	rules := w.Keys.Rules()
	rules.Trust.Keys = append(rules.Trust.Keys, bob.Public())
	rules.Recovery = []signing.PublicKey{rec.Public()}
	alice := w.Keys.Key
	c := newChannelKeys(t, rules)
	revocation := c.revoke(rec, alice)

	d := signedBy(alice, 2, pathB, 0)
	d.Grant = nil
	w.Wants = d
	if _, err := w.Drive(rules, 50, nil); err == nil || w.Acks[len(w.Acks)-1].State != api.WaitingState {
		t.Fatal("it is not staged", w.Acks[len(w.Acks)-1])
	}
	d = signedBy(alice, 2, pathB, 0) // granted, and revoked
	d.Revocations = []*signing.Envelope{revocation}
	w.Wants = d
	runs(t, w, rules, api.Rejected, "signatures are good")
	if w.Current != pathA {
		t.Errorf("it runs %s", w.Current)
	}
	w.Wants = signedBy(alice, 3, pathB, 0) // and hidden again
	runs(t, w, rules, api.Rejected, "signatures are good")
	without := rules
	without.Recovery = nil // a configuration of before
	runs(t, w, without, api.Rejected, "signatures are good")
	w.Wants = signedBy(rec, 3, pathB, 0)
	runs(t, w, rules, api.Rejected, "signatures are good")
	w.Wants = signedBy(bob, 3, pathB, 0)
	runs(t, w, rules, api.OK, "")

	// A host that does not know the recovery key goes on.
	w = world(t, sim.System{})
	d = signedBy(w.Keys.Key, 2, pathB, 0)
	d.Revocations = []*signing.Envelope{newChannelKeys(t, w.Keys.Rules()).revoke(rec, w.Keys.Key)}
	w.Wants = d
	runs(t, w, w.Keys.Rules(), api.OK, "")
}

// TestRequireFresh: a release that is too old, or past its time, is an alarm, and nothing else.
func TestRequireFresh(t *testing.T) {
	w := world(t, sim.System{})
	rules := w.Keys.Rules()
	f, err := w.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rules.Fresh = 7 * 24 * time.Hour
	age := func(seq int64, age, expires time.Duration) {
		h := head(seq)
		h.Created = f.Wall.Add(-age).UTC().Truncate(time.Second)
		if expires != 0 {
			at := h.Created.Add(expires)
			h.Expires = &at
		}
		w.Wants = signedBy(w.Keys.Key, seq, pathB, 0)
		w.Wants.Pointer = w.Keys.PointerOf(h, entryB())
	}
	age(2, time.Hour, 0)
	runs(t, w, rules, api.OK, "")
	if j := drive(t, w); j.Alarm != "" {
		t.Errorf("alarm %q", j.Alarm)
	}
	age(3, 8*24*time.Hour, 0)
	runs(t, w, rules, api.OK, "older than require_fresh (168h0m0s): is a newer one withheld?")
	if s := w.Acks[len(w.Acks)-1]; !strings.Contains(s.Error, "narwharf channel refresh") || s.State != api.OK {
		t.Errorf("%s: %q", s.State, s.Error)
	}
	age(4, 2*time.Hour, time.Hour)
	runs(t, w, rules, api.OK, "its time was over")
	age(5, time.Hour, 0) // refreshed
	runs(t, w, rules, api.OK, "")
	rules.Fresh = 0
	age(6, 9*24*time.Hour, 0)
	if j, err := w.Drive(rules, 2000, nil); err != nil || j.Alarm != "" {
		t.Errorf("%v, alarm %q", err, j.Alarm)
	}
}
