package curve

import (
	"encoding/hex"
	"slices"
)

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
		panic("curve: bad constant " + s)
	}
	return b
}

// SmallOrder tells whether an Ed25519 public key has a small order.
func SmallOrder(key [32]byte) bool {
	key[31] &= 0x7f
	return slices.Contains(smallOrderY[:], key)
}
