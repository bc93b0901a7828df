package hooks

import (
	"errors"
	"slices"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/channel"
	"narwharf/signing"
	"narwharf/signing/keyring"
)

const keysPath = "/api/v1/channels/web/keys"

// ring is the keys of the channel as whoever believes w.key alone sees them.
func (w *world) ring(recovery ...signing.PublicKey) (keyring.Base, *keyring.Ring) {
	w.t.Helper()
	k := decode[api.Keys](w.t, w.must(w.do("GET", keysPath, "", nil), 200, ""))
	b := keyring.Base{Origin: "cache.example.org/web", Channel: "web", Keys: []signing.PublicKey{w.key.Public()}, Threshold: 1, Recovery: recovery}
	return b, keyring.Walk(b, k.Statements, k.Revocations)
}

// statement is the next one about the channel's keys.
func (w *world) statement(keys []signing.PublicKey, threshold int, signers ...signing.SecretKey) *signing.Envelope {
	w.t.Helper()
	b, r := w.ring()
	k := r.Next(b, keys, threshold)
	k.Created = time.Now()
	e, err := k.Seal()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range signers {
		e.Sign(keyring.KeysKind, s)
	}
	return e
}

func (w *world) putKeys(token string, c api.KeysChange) answer {
	return w.do("PUT", keysPath, token, c)
}

// send promotes as CI does, which says nothing of the keys.
func (w *world) send(seq int64, system string) answer { return w.sendAfter(seq-1, seq, system) }

func (w *world) sendAfter(was, seq int64, system string) answer {
	w.t.Helper()
	body := api.Promotion{Release: *w.release(w.head(seq), w.entry("*", w.system(system)))}
	return w.do("PUT", "/api/v1/channels/web", w.ci, body, "If-Match", channel.ETag(was))
}

// desired is what an agent is told that has come to a version of the keys; "": one of before.
func (w *world) desired(version string) api.Desired {
	w.t.Helper()
	query := ""
	if version != "" {
		query = "&keys=" + version
	}
	return decode[api.Desired](w.t, w.must(w.do("GET", "/api/v1/hosts/h1/desired?channel=web"+query, w.host, nil), 200, ""))
}

// TestKeysOverTime: a key comes, releases are signed by it, another goes; promotes are
// checked by what is in force, hosts are sent what leads there, and files bring it back.
func TestKeysOverTime(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.key, newKey(t, "bob-1")
	p256, err := signing.GenerateP256("carol-1")
	if err != nil {
		t.Fatal(err)
	}
	w.must(w.do("GET", keysPath, "", nil), 404, api.NotFound)
	w.must(w.putKeys(w.ci, api.KeysChange{Recovery: []string{"x"}}), 403, api.Forbidden, "admin")
	w.must(w.promote(1, w.entry("*", w.system("a"))), 200, "")
	if k := decode[api.Keys](t, w.do("GET", keysPath, "", nil)); k.Version != 0 || len(k.Keys) != 1 || k.Threshold != 1 {
		t.Errorf("%+v", k)
	}
	both := []signing.PublicKey{alice.Public(), bob.Public()}
	add := w.statement(both, 1, alice)
	w.must(w.putKeys("", api.KeysChange{Statement: add}), 401, api.Unauthorized)
	w.must(w.putKeys(w.host, api.KeysChange{Statement: add}), 403, api.Forbidden)
	w.must(w.putKeys(w.ci, api.KeysChange{}), 400, api.BadRequest, "narwharf channel keys")
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: w.statement(both, 1, bob)}), 422, api.BadSignature, "by the keys before")
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: w.statement(both, 2, alice)}), 422, api.BadSignature, "by its own keys")
	other := *add
	other.Payload = []byte(`{"v":1}`)
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: &other}), 422, api.Invalid)
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: add}), 200, "")
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: add}), 200, "") // again
	if d := w.desired("0"); len(d.Keys) != 1 || len(w.desired("1").Keys) != 0 || len(w.desired("").Keys) != 0 {
		t.Errorf("%d statements", len(d.Keys))
	}
	w.must(w.do("GET", "/api/v1/hosts/h1/desired?channel=web&keys=x", w.host, nil), 400, api.BadRequest)

	// alice cannot go while her release is the last.
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: w.statement(both[1:], 1, alice, bob)}), 422, api.BadSignature, "narwharf channel refresh")
	w.key = bob
	w.must(w.send(2, "b"), 200, "")
	w.key = alice
	retire := w.statement(append(both[1:], p256.Public()), 1, bob)
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: retire}), 200, "", "carol-1:ecdsa-p256:")
	w.must(w.send(3, "c"), 422, api.BadSignature, "bob-1")
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: add}), 200, "") // it is here
	fork := &keyring.Keys{Origin: "cache.example.org/web", Channel: "web", Version: 2, Previous: new(signing.Digest), Keys: keyring.Texts(both), Threshold: 1, Created: time.Now()}
	fork.Previous[0] = 1
	e, err := fork.Seal()
	if err != nil {
		t.Fatal(err)
	}
	e.Sign(keyring.KeysKind, alice)
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: e}), 409, api.SeqConflict, "does not follow")

	check := func(what string) {
		t.Helper()
		_, r := w.ring()
		k := decode[api.Keys](t, w.do("GET", keysPath, "", nil))
		if r.Version != 2 || keyring.Names(r.Keys) != "bob-1, carol-1" || k.Version != 2 || !slices.Equal(k.Keys, keyring.Texts(r.Keys)) {
			t.Errorf("%s: %d of %s (%s); %+v", what, r.Version, keyring.Names(r.Keys), r.Why, k)
		}
	}
	check("now")
	w.restart()
	check("after a restart")
	w.must(w.do("GET", "/api/v1/events", w.admin, nil), 200, "", "channel.keys", "the keys of web are version 2: 1 of bob-1, carol-1")

	// The database is lost.
	w.stop()
	w.path += ".new"
	w.start()
	if _, _, err := w.s.Restore(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	check("restored")
	w.must(w.send(4, "c"), 422, api.BadSignature)
	w.key = bob
	w.must(w.sendAfter(2, 4, "c"), 200, "")
}

// TestRevokedKey: a recovery key takes a promoter's key out at once, undoes what it did to
// the keys, and nobody is granted what it signed.
func TestRevokedKey(t *testing.T) {
	w := newWorld(t)
	alice, bob, thief, rec := w.key, newKey(t, "bob-1"), newKey(t, "thief-1"), newKey(t, "recovery-1")
	w.must(w.promote(1, w.entry("*", w.system("a"))), 200, "")
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: w.statement([]signing.PublicKey{alice.Public(), bob.Public()}, 1, alice)}), 200, "")
	b, r := w.ring()
	revocation := func(r *keyring.Ring, by signing.SecretKey, keys ...signing.SecretKey) *signing.Envelope {
		t.Helper()
		v := &keyring.Revocation{Origin: b.Origin, Channel: b.Channel, Version: r.Version, Digest: r.Digest, Reason: "laptop stolen", Created: time.Now()}
		for _, k := range keys {
			v.Keys = append(v.Keys, k.Public().String())
		}
		e, err := v.Seal()
		if err != nil {
			t.Fatal(err)
		}
		e.Sign(keyring.RevocationKind, by)
		return e
	}
	good := revocation(r, rec, alice)
	w.must(w.putKeys(w.admin, api.KeysChange{Revocation: good}), 422, api.Invalid, "knows no recovery key", "narwharf channel keys web recovery KEY")
	w.must(w.putKeys(w.ci, api.KeysChange{Recovery: []string{rec.Public().String()}}), 403, api.Forbidden)
	w.must(w.putKeys(w.admin, api.KeysChange{Recovery: []string{"x"}}), 422, api.Invalid)
	w.must(w.putKeys(w.admin, api.KeysChange{Recovery: []string{rec.Public().String()}}), 200, "", "recovery-1")

	// The thief has alice's key and her token.
	w.must(w.send(2, "evil"), 200, "")
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: w.statement([]signing.PublicKey{thief.Public(), alice.Public()}, 1, alice)}), 200, "")
	if d := w.desired("0"); d.Grant == nil || len(d.Keys) != 2 {
		t.Errorf("%+v", d)
	}
	w.must(w.putKeys(w.ci, api.KeysChange{Revocation: revocation(r, thief, bob)}), 422, api.BadSignature)
	stranger := *r
	stranger.Version, stranger.Digest = 7, new(signing.Digest)
	stranger.Digest[0] = 7
	w.must(w.putKeys(w.ci, api.KeysChange{Revocation: revocation(&stranger, rec, alice)}), 422, api.Invalid, "does not have")
	w.must(w.putKeys(w.ci, api.KeysChange{Revocation: good}), 200, "")
	w.must(w.putKeys(w.ci, api.KeysChange{Revocation: good}), 200, "") // again
	d := w.desired("0")
	if d.Grant != nil || d.WaitingFor == nil || d.WaitingFor.Kind != api.WaitHold || len(d.Keys) != 1 || len(d.Revocations) != 1 {
		t.Errorf("%+v", d)
	}
	if old := w.desired(""); old.Grant != nil || old.Revocations != nil {
		t.Errorf("an agent of before: %+v", old)
	}
	k := decode[api.Keys](t, w.do("GET", keysPath, "", nil))
	if k.Version != 1 || len(k.Revoked) != 1 || len(k.Revocations) != 1 {
		t.Errorf("%+v", k)
	}
	w.must(w.send(3, "evil"), 422, api.BadSignature)
	evil := api.Promotion{Release: *w.release(w.head(3), w.entry("*", w.system("evil"))), Keys: []string{alice.Public().String()}}
	w.must(w.do("PUT", "/api/v1/channels/web", w.admin, evil, "If-Match", `"2"`), 422, api.BadSignature)
	w.restart()
	w.key = bob
	w.must(w.send(3, "a"), 200, "")
	if d := w.desired("1"); d.Grant == nil || d.Grant.Seq != 3 {
		t.Errorf("%+v", d)
	}
	w.must(w.do("GET", "/api/v1/events", w.admin, nil), 200, "", "a recovery key revoked deploy-1 for web (laptop stolen); now 1 of bob-1 sign", `"alarm":true`)

	// The database is lost.
	w.stop()
	w.path += ".new"
	w.start()
	if _, _, err := w.s.Restore(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	w.key = alice
	w.must(w.sendAfter(3, 4, "evil"), 422, api.BadSignature)
}

// TestKeysFailAtEachWrite: where the file cannot be written nothing has changed.
func TestKeysFailAtEachWrite(t *testing.T) {
	w := newWorld(t)
	w.must(w.promote(1, w.entry("*", w.system("a"))), 200, "")
	before := w.do("GET", keysPath, "", nil).body
	w.files.fail = errors.New("no space left on device")
	e := w.statement([]signing.PublicKey{newKey(t, "bob-1").Public(), w.key.Public()}, 1, w.key)
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: e}), 500, api.Internal)
	w.files.fail = nil
	if after := w.do("GET", keysPath, "", nil).body; after != before {
		t.Errorf("%s became %s", before, after)
	}
	w.must(w.putKeys(w.ci, api.KeysChange{Statement: e}), 200, "")
}
