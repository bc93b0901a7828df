// Package hostkey proves who a host is by the SSH host key that it has already.
//
// # What is signed
//
// The text of [Message], five lines, each with a line feed at its end:
//
//	narwharf host 1
//	nonce NONCE
//	url PUBLIC_URL
//	host HOST
//	instance INSTANCE
//
// NONCE is the server's (package challenge), PUBLIC_URL is public_url of the server's
// configuration without a slash at its end, HOST is the host's name, INSTANCE its 32 hex digits.
// A server that passes the nonce of another on to a host gets a signature over its own URL.
//
// # The signature
//
// It is an SSHSIG in its armour (PROTOCOL.sshsig of OpenSSH), namespace host@narwharf, hash
// sha512. OpenSSH makes the same:
//
//	ssh-keygen -Y sign -f /etc/ssh/ssh_host_ed25519_key -n host@narwharf < message
//
// Keys are ed25519, ECDSA on the NIST curves with SHA-2, and RSA from 2048 to 8192 bits with
// rsa-sha2-256 or rsa-sha2-512. Refused are RSA with SHA-1, DSA, certificates, and keys of security
// tokens (sk-…): no host has one, and what they promise, that somebody touched them, is not checked.
//
// # Which keys
//
// A [List] is read from a file in the format of known_hosts. What it would mean for a fleet that
// one line is for many hosts is refused: see [ParseList].
package hostkey

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// Namespace is that of the signatures: none that was made for something else is taken.
const Namespace = "host@narwharf"

const (
	armour  = "SSH SIGNATURE"
	hashing = "sha512"

	// maxArmoured bounds a signature: one by 8192 bits of RSA has 3 KiB.
	maxArmoured = 8 << 10
)

// magic begins a signature, and what is signed.
var magic = [6]byte{'S', 'S', 'H', 'S', 'I', 'G'}

// Message is what a host signs.
func Message(nonce, publicURL, host, instance string) []byte {
	return fmt.Appendf(nil, "narwharf host 1\nnonce %s\nurl %s\nhost %s\ninstance %s\n", nonce, publicURL, host, instance)
}

// blob is what the armour holds.
type blob struct {
	Magic     [6]byte
	Version   uint32
	Key       string
	Namespace string
	Reserved  string
	Hash      string
	Signature string
}

// signed is what is signed.
func signed(message []byte) []byte {
	sum := sha512.Sum512(message)
	return ssh.Marshal(struct {
		Magic                     [6]byte
		Namespace, Reserved, Hash string
		Sum                       string
	}{magic, Namespace, "", hashing, string(sum[:])})
}

// Key is a public key of a kind that is good for hosts.
type Key struct{ of ssh.PublicKey }

// Fingerprint is "SHA256:…", as ssh-keygen -l prints it.
func (k Key) Fingerprint() string { return ssh.FingerprintSHA256(k.of) }

// Type is the key's, as "ssh-ed25519".
func (k Key) Type() string { return k.of.Type() }

// text is the key's bytes.
func (k Key) text() string { return string(k.of.Marshal()) }

// algorithms are those with which a kind of key may sign.
var algorithms = map[string][]string{
	ssh.KeyAlgoED25519:  {ssh.KeyAlgoED25519},
	ssh.KeyAlgoECDSA256: {ssh.KeyAlgoECDSA256},
	ssh.KeyAlgoECDSA384: {ssh.KeyAlgoECDSA384},
	ssh.KeyAlgoECDSA521: {ssh.KeyAlgoECDSA521},
	ssh.KeyAlgoRSA:      {ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
}

// accept tells why a key is none that is good for hosts.
func accept(key ssh.PublicKey) (Key, error) {
	if algorithms[key.Type()] == nil {
		return Key{}, fmt.Errorf("a key of type %.40q is not taken: use ssh-ed25519, ecdsa-sha2-nistp256, -384, -521, or ssh-rsa", key.Type())
	}
	if k, ok := key.(ssh.CryptoPublicKey); ok {
		if r, ok := k.CryptoPublicKey().(*rsa.PublicKey); ok && (r.N.BitLen() < 2048 || r.N.BitLen() > 8192) {
			return Key{}, fmt.Errorf("an RSA key of %d bits is not taken: it needs 2048 to 8192, or use ed25519", r.N.BitLen())
		}
	}
	return Key{key}, nil
}

// Verify returns the key that made a signature over a message. Whose key that is, it does not
// say. The error is for who sent it, and has nothing of the signature in it.
func Verify(armoured string, message []byte) (Key, error) {
	if len(armoured) > maxArmoured {
		return Key{}, fmt.Errorf("the signature has %d bytes, more than %d", len(armoured), maxArmoured)
	}
	block, rest := pem.Decode([]byte(armoured))
	if block == nil || block.Type != armour || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return Key{}, errors.New("the signature is no SSH SIGNATURE in its armour, as ssh-keygen -Y sign makes it")
	}
	var b blob
	if err := ssh.Unmarshal(block.Bytes, &b); err != nil || b.Magic != magic {
		return Key{}, errors.New("the signature is cut short or damaged")
	}
	switch {
	case b.Version != 1:
		return Key{}, fmt.Errorf("the signature has version %d, and 1 is known", b.Version)
	case b.Namespace != Namespace:
		return Key{}, fmt.Errorf("the signature is for the namespace %.64q: sign with -n %s", b.Namespace, Namespace)
	case b.Hash != hashing:
		return Key{}, fmt.Errorf("the signature hashes by %.16q: %s is taken", b.Hash, hashing)
	case b.Reserved != "":
		return Key{}, errors.New("the signature has something in its reserved field")
	}
	public, err := ssh.ParsePublicKey([]byte(b.Key))
	if err != nil {
		return Key{}, errors.New("the public key in the signature cannot be read")
	}
	key, err := accept(public)
	if err != nil {
		return Key{}, err
	}
	var s ssh.Signature
	switch err := ssh.Unmarshal([]byte(b.Signature), &s); {
	case err != nil || len(s.Rest) > 0:
		return Key{}, errors.New("the signature is cut short or damaged")
	case !slices.Contains(algorithms[public.Type()], s.Format):
		return Key{}, fmt.Errorf("a signature by %.40q is not taken of a key of type %s", s.Format, public.Type())
	case public.Verify(signed(message), &s) != nil:
		return Key{}, errors.New("the signature is not over the nonce, URL, host and instance of this request: is the host's server URL the server's public_url?")
	}
	return key, nil
}

// Sign makes a signature over a message, in its armour.
func Sign(private ssh.Signer, message []byte) (string, error) {
	key, err := accept(private.PublicKey())
	if err != nil {
		return "", err
	}
	var s *ssh.Signature
	if a, ok := private.(ssh.AlgorithmSigner); ok {
		s, err = a.SignWithAlgorithm(rand.Reader, signed(message), algorithms[key.Type()][0])
	} else {
		s, err = private.Sign(rand.Reader, signed(message))
	}
	if err != nil {
		return "", fmt.Errorf("sign with %s: %w", key.Fingerprint(), err)
	}
	b := blob{magic, 1, key.text(), Namespace, "", hashing, string(ssh.Marshal(s))}
	return string(pem.EncodeToMemory(&pem.Block{Type: armour, Bytes: ssh.Marshal(b)})), nil
}

// ParsePrivate reads a host's private key, which has no passphrase.
func ParsePrivate(text []byte) (ssh.Signer, error) {
	private, err := ssh.ParsePrivateKey(text)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, errors.New("it has a passphrase, and a host's key has none")
	}
	if err != nil {
		return nil, errors.New("it is no private key of OpenSSH")
	}
	if _, err := accept(private.PublicKey()); err != nil {
		return nil, err
	}
	return private, nil
}
