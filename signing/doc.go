// Package signing holds Nix's signing keys and what Narwharf signs with them.
//
// # Keys
//
// A key is one line, "name:base64": 64 bytes for a secret key (the Ed25519 seed
// and the public key, as libsodium has them), 32 for a public key, and a
// signature is 64 bytes in the same form. `nix key generate-secret` and
// `nix-store --generate-binary-cache-key` make them. Names are free; two keys
// may have the same one, and then a signature by either is good. Nix itself
// keeps only one key of a name in trusted-public-keys, so new keys should have
// new names.
//
// # What it refuses
//
// Anything but that one form: no name, white space or unprintable characters in
// the name, base64 without padding or with line breaks in it, another length, a
// secret key whose halves do not belong together, and public keys of small
// order, with which anyone can make signatures.
//
// # Secrets
//
// No error of this package holds a part of its input, since what a person
// passes by mistake may be a secret key. A SecretKey prints as its name in fmt
// and in slog; only its String method gives the secret.
package signing
