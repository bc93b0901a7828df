package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"narwharf/narinfo"
	"narwharf/signing/ijson"
)

// SecretKey signs. It is safe for concurrent use. The zero value is not a key:
// its methods panic.
type SecretKey struct {
	// A function, because fmt prints one as an address and with no verb follows
	// it, even in an unexported field of someone's struct, where fmt cannot call
	// Format. It does follow a pointer there.
	pair func() *keyPair
}

type keyPair struct {
	secret signature.SecretKey
	public PublicKey
}

// ParseSecretKey reads the line that Nix keeps in a secret key file,
// "name:base64 of 64 bytes". White space around it is cut off. The error does
// not say which file it was; the caller should.
func ParseSecretKey(s string) (SecretKey, error) {
	name, data, err := split(strings.TrimSpace(s))
	switch {
	case err != nil:
		return SecretKey{}, fmt.Errorf("parse secret key: %w", err)
	case len(data) == ed25519.PublicKeySize:
		return SecretKey{}, errors.New("parse secret key: this is a public key (32 bytes); the secret key (64 bytes) is needed, the other file that the key was made with")
	case len(data) != ed25519.PrivateKeySize:
		return SecretKey{}, fmt.Errorf("parse secret key: it has %d bytes where a secret key has 64; the file may be cut short", len(data))
	}
	// libsodium and Go both sign with the public half as it stands, and a
	// signature made with a wrong one gives the secret away.
	if !bytes.Equal(ed25519.NewKeyFromSeed(data[:ed25519.SeedSize]), data) {
		return SecretKey{}, errors.New("parse secret key: its two halves do not belong together; this is a signature or a damaged key")
	}
	secret, err := signature.LoadSecretKey(encode(name, data))
	if err != nil {
		return SecretKey{}, errors.New("parse secret key: not in Nix's format")
	}
	return newSecretKey(secret), nil
}

// GenerateKey makes a new key of that name from the system's randomness.
func GenerateKey(name string) (SecretKey, error) {
	if !narinfo.ValidKeyName(name) {
		return SecretKey{}, fmt.Errorf("generate key: %q cannot be the name of a key; use something like cache.example.org-1", name)
	}
	secret, _, err := signature.GenerateKeypair(name, nil)
	if err != nil {
		return SecretKey{}, fmt.Errorf("generate key %s: %w", name, err)
	}
	return newSecretKey(secret), nil
}

func newSecretKey(secret signature.SecretKey) SecretKey {
	p := &keyPair{secret: secret}
	public := secret.ToPublicKey()
	p.public.name = public.Name
	copy(p.public.data[:], public.Data)
	return SecretKey{func() *keyPair { return p }}
}

// String is the secret in Nix's format, without a newline. It is for writing
// key files; fmt and slog do not use it.
func (k SecretKey) String() string { return k.pair().secret.String() }

// Name is the part before the colon.
func (k SecretKey) Name() string { return k.pair().public.name }

// Public is the key that verifies what k signs.
func (k SecretKey) Public() PublicKey { return k.pair().public }

// Sign returns "name:base64" of the Ed25519 signature of msg. The same key and
// message always give the same text.
func (k SecretKey) Sign(msg []byte) string {
	sig, err := k.pair().secret.Sign(nil, string(msg))
	if err != nil {
		// Ed25519 refuses only options that are not given here.
		panic("signing: " + err.Error())
	}
	return sig.String()
}

// Format prints the name and that this is a secret, whatever the verb.
func (k SecretKey) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, k.redacted())
}

// LogValue is what slog shows: the same as Format.
func (k SecretKey) LogValue() slog.Value { return slog.StringValue(k.redacted()) }

func (k SecretKey) redacted() string {
	if k.pair == nil {
		return "no secret key"
	}
	return k.Name() + ":(secret)"
}

// PublicKey verifies. Two of the same name and bytes are ==.
type PublicKey struct {
	name string
	data [ed25519.PublicKeySize]byte
}

// ParsePublicKey reads "name:base64 of 32 bytes", as in trusted-public-keys of
// nix.conf. White space around it is cut off.
func ParsePublicKey(s string) (PublicKey, error) {
	name, data, err := split(strings.TrimSpace(s))
	switch {
	case err != nil:
		return PublicKey{}, fmt.Errorf("parse public key: %w", err)
	case len(data) == ed25519.PrivateKeySize:
		return PublicKey{}, errors.New("parse public key: this has 64 bytes, as a secret key or a signature has; the public key (32 bytes) is needed. Make it with: narwharf key public < FILE")
	case len(data) != ed25519.PublicKeySize:
		return PublicKey{}, fmt.Errorf("parse public key: it has %d bytes where a public key has 32; it may be cut short", len(data))
	}
	k := PublicKey{name: name, data: [ed25519.PublicKeySize]byte(data)}
	if smallOrder(k.data) {
		return PublicKey{}, errors.New("parse public key: anyone can make signatures for these bytes (a point of small order); this is a placeholder or a trap, not a key")
	}
	return k, nil
}

// String is the key in Nix's format.
func (k PublicKey) String() string { return encode(k.name, k.data[:]) }

// Name is the part before the colon.
func (k PublicKey) Name() string { return k.name }

// Verify reports whether sig, "name:base64", is a signature of msg by k and
// under k's name. A malformed sig is not. The zero PublicKey verifies nothing.
func (k PublicKey) Verify(msg []byte, sig string) bool {
	_, ok := VerifyAny(msg, []string{sig}, []PublicKey{k})
	return ok
}

// ParseSignature reads "name:base64 of 64 bytes" strictly: what it takes is
// exactly what narinfo.Parse takes after "Sig: ".
func ParseSignature(s string) (name string, sig []byte, err error) {
	name, sig, err = split(s)
	if err != nil {
		return "", nil, fmt.Errorf("parse signature: %w", err)
	}
	if len(sig) != ed25519.SignatureSize {
		return "", nil, fmt.Errorf("parse signature: it has %d bytes where a signature has 64", len(sig))
	}
	return name, sig, nil
}

// VerifyAny returns a key of keys that made one of sigs over msg. Unlike Nix and
// go-nix it tries every key that has the signature's name. Malformed signatures
// are passed over.
func VerifyAny(msg []byte, sigs []string, keys []PublicKey) (PublicKey, bool) {
	for _, s := range sigs {
		name, sig, err := ParseSignature(s)
		if err != nil {
			continue
		}
		for _, k := range keys {
			if name == k.name && ed25519.Verify(k.data[:], msg, sig) {
				return k, true
			}
		}
	}
	return PublicKey{}, false
}

// split reads "name:base64". Its errors hold nothing of s.
func split(s string) (name string, data []byte, err error) {
	name, digits, ok := strings.Cut(s, ":")
	switch {
	case !ok:
		return "", nil, errors.New("it has no colon; Nix's format is name:base64")
	case name == "":
		return "", nil, errors.New("it has no name before the colon; Nix's format is name:base64")
	case !narinfo.ValidKeyName(name):
		return "", nil, errors.New("its name has a space or something that does not print; Nix's format is name:base64 on one line")
	case digits == "":
		return "", nil, errors.New("nothing follows the colon; Nix's format is name:base64")
	}
	if data, err = ijson.Base64(digits); err != nil {
		return "", nil, errors.New("what follows the first colon is not padded base64 on one line")
	}
	return name, data, nil
}

func encode(name string, data []byte) string {
	return name + ":" + base64.StdEncoding.EncodeToString(data)
}

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

// smallOrderY are the encodings, without the sign bit, of the points whose
// order divides eight, the three that are not reduced modulo p included. For
// such a public key a signature that fits one message in eight needs no secret;
// libsodium, and so Nix, refuses them when verifying and Go does not.
var smallOrderY = [...][32]byte{
	y("0000000000000000000000000000000000000000000000000000000000000000"), // order 4
	y("0100000000000000000000000000000000000000000000000000000000000000"), // order 1
	y("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), // order 8
	y("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), // order 8
	y("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // p-1, order 2
	y("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // p, as 0
	y("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // p+1, as 1
}

func y(s string) (b [32]byte) {
	if n, err := hex.Decode(b[:], []byte(s)); err != nil || n != len(b) {
		panic("signing: bad constant " + s)
	}
	return b
}

// smallOrder reports whether the public key has a small order.
func smallOrder(key [32]byte) bool {
	key[31] &= 0x7f
	return slices.Contains(smallOrderY[:], key)
}
