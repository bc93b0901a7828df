package hostkey

import (
	"crypto/dsa" //nolint:staticcheck // to be refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

var message = Message("bm9uY2U", "https://cache.example.org", "web-1", "0123456789abcdef0123456789abcdef")

func signer(t *testing.T, key any, err error) ssh.Signer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newED25519(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return signer(t, key, err)
}

func newRSA(t *testing.T, bits int) ssh.Signer {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, bits)
	return signer(t, key, err)
}

func newECDSA(t *testing.T, curve elliptic.Curve) ssh.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	return signer(t, key, err)
}

func TestMessage(t *testing.T) {
	want := "narwharf host 1\nnonce bm9uY2U\nurl https://cache.example.org\nhost web-1\ninstance 0123456789abcdef0123456789abcdef\n"
	if string(message) != want {
		t.Errorf("message %q", message)
	}
}

func TestSignAndVerify(t *testing.T) {
	for name, s := range map[string]ssh.Signer{
		"ed25519": newED25519(t), "rsa": newRSA(t, 2048),
		"p256": newECDSA(t, elliptic.P256()), "p384": newECDSA(t, elliptic.P384()), "p521": newECDSA(t, elliptic.P521()),
	} {
		armoured, err := Sign(s, message)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		key, err := Verify(armoured, message)
		if err != nil || key.Fingerprint() != ssh.FingerprintSHA256(s.PublicKey()) || key.Type() != s.PublicKey().Type() {
			t.Errorf("%s: %v, %v", name, key, err)
		}
		for _, other := range [][]byte{nil, message[1:], Message("bm9uY2U", "https://cache.example.org", "web-2", "0123456789abcdef0123456789abcdef")} {
			if _, err := Verify(armoured, other); err == nil || !strings.Contains(err.Error(), "not over") {
				t.Errorf("%s over %q: %v", name, other, err)
			}
		}
	}
}

// TestSSHKeygen: what OpenSSH signs is taken, with each kind of key that it makes for hosts.
func TestSSHKeygen(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip("there is no ssh-keygen (Debian: openssh-client)")
	}
	dir := t.TempDir()
	for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
		file := filepath.Join(dir, kind)
		run := func(stdin string, args ...string) string {
			t.Helper()
			c := exec.Command(keygen, args...)
			c.Stdin = strings.NewReader(stdin)
			out, err := c.Output()
			if err != nil {
				t.Fatalf("ssh-keygen %v: %v", args, err)
			}
			return string(out)
		}
		bits := []string{}
		if kind == "rsa" { // a longer one is drawn for seconds
			bits = []string{"-b", "2048"}
		}
		run("", append([]string{"-q", "-t", kind, "-N", "", "-f", file}, bits...)...)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		private, err := ParsePrivate(text)
		if err != nil {
			t.Fatal(err)
		}
		key, err := Verify(run(string(message), "-Y", "sign", "-f", file, "-n", Namespace), message)
		if err != nil || key.Fingerprint() != ssh.FingerprintSHA256(private.PublicKey()) {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := Verify(run(string(message), "-Y", "sign", "-f", file, "-n", "git"), message); err == nil || !strings.Contains(err.Error(), "-n "+Namespace) {
			t.Errorf("%s for another namespace: %v", kind, err)
		}
		if _, err := Verify(run(string(message), "-Y", "sign", "-f", file, "-n", Namespace, "-O", "hashalg=sha256"), message); err == nil || !strings.Contains(err.Error(), "sha512 is taken") {
			t.Errorf("%s with another hash: %v", kind, err)
		}
		// And the other way round.
		ours, err := Sign(private, message)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "sig"), []byte(ours), 0o600); err != nil {
			t.Fatal(err)
		}
		run(string(message), "-Y", "check-novalidate", "-n", Namespace, "-s", filepath.Join(dir, "sig"))
		if kind != "ed25519" {
			continue
		}
		run("", "-q", "-p", "-P", "", "-N", "secret", "-f", file)
		if text, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePrivate(text); err == nil || !strings.Contains(err.Error(), "passphrase") {
			t.Errorf("%s with a passphrase: %v", kind, err)
		}
	}
}

// parts takes a signature apart, so that it can be put together otherwise.
func parts(t *testing.T, armoured string) (b blob) {
	t.Helper()
	block, _ := pem.Decode([]byte(armoured))
	if err := ssh.Unmarshal(block.Bytes, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func together(b blob) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: armour, Bytes: ssh.Marshal(b)}))
}

func TestSignatureRefusals(t *testing.T) {
	good, err := Sign(newED25519(t), message)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Sign(newED25519(t), message)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*blob)) string {
		b := parts(t, good)
		change(&b)
		return together(b)
	}
	rsaKey := newRSA(t, 2048)
	sha1, err := rsaKey.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, signed(message), ssh.KeyAlgoRSA)
	if err != nil {
		t.Fatal(err)
	}
	small := newRSA(t, 1024)
	smallSigned, err := small.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, signed(message), ssh.KeyAlgoRSASHA512)
	if err != nil {
		t.Fatal(err)
	}
	sk := ssh.Marshal(struct{ Type, Key, Application string }{ssh.KeyAlgoSKED25519, strings.Repeat("k", 32), "ssh:"})
	for name, c := range map[string]struct{ armoured, want string }{
		"empty":             {"", "armour"},
		"other armour":      {strings.ReplaceAll(good, "SSH SIGNATURE", "PGP SIGNATURE"), "armour"},
		"two":               {good + good, "armour"},
		"with headers":      {strings.Replace(good, "\n", "\nA: b\n\n", 1), "armour"},
		"large":             {good + strings.Repeat("\n", maxArmoured), "more than 8192"},
		"cut":               {string(pem.EncodeToMemory(&pem.Block{Type: armour, Bytes: []byte("SSHSIG\x00\x00")})), "damaged"},
		"magic":             {with(func(b *blob) { b.Magic[5] = 'H' }), "damaged"},
		"version":           {with(func(b *blob) { b.Version = 2 }), "version 2"},
		"namespace":         {with(func(b *blob) { b.Namespace = "file" }), "-n host@narwharf"},
		"hash":              {with(func(b *blob) { b.Hash = "sha256" }), "sha512 is taken"},
		"reserved":          {with(func(b *blob) { b.Reserved = "x" }), "reserved"},
		"no key":            {with(func(b *blob) { b.Key = "" }), "cannot be read"},
		"another's key":     {with(func(b *blob) { b.Key = parts(t, other).Key }), "not over"},
		"no signature":      {with(func(b *blob) { b.Signature = "" }), "damaged"},
		"another algorithm": {with(func(b *blob) { b.Signature = parts(t, together(blob{Signature: string(ssh.Marshal(sha1))})).Signature }), "ssh-rsa"},
		"RSA with SHA-1":    {with(func(b *blob) { b.Key, b.Signature = string(rsaKey.PublicKey().Marshal()), string(ssh.Marshal(sha1)) }), "by \"ssh-rsa\""},
		"RSA of 1024 bits": {with(func(b *blob) {
			b.Key, b.Signature = string(small.PublicKey().Marshal()), string(ssh.Marshal(smallSigned))
		}), "1024 bits"},
		"a security token's": {with(func(b *blob) { b.Key = string(sk) }), "sk-ssh-ed25519"},
		"something behind":   {with(func(b *blob) { b.Signature += "\x00\x00\x00\x00\x05" }), "damaged"},
	} {
		_, err := Verify(c.armoured, message)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 200 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Verify("\n"+good+" \n\n", message); err != nil {
		t.Errorf("with white space around it: %v", err)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	if _, err := Sign(newRSA(t, 1024), message); err == nil {
		t.Error("signed with 1024 bits")
	}
	d := &dsa.PublicKey{Parameters: dsa.Parameters{P: new(big.Int).Lsh(big.NewInt(1), 1023), Q: new(big.Int).Lsh(big.NewInt(1), 159), G: big.NewInt(2)}, Y: big.NewInt(3)}
	if public, err := ssh.NewPublicKey(d); err == nil {
		if _, err := accept(public); err == nil {
			t.Error("DSA is taken")
		}
	}
	s := newED25519(t)
	cert := &ssh.Certificate{Key: s.PublicKey(), CertType: ssh.HostCert}
	if err := cert.SignCert(rand.Reader, newED25519(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := accept(cert); err == nil || !strings.Contains(err.Error(), "cert") {
		t.Errorf("a certificate: %v", err)
	}
	if _, err := ParsePrivate([]byte("secret")); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("no key: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		f.Fatal(err)
	}
	good, err := Sign(s, message)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, armoured string) {
		if key, err := Verify(armoured, message); err == nil && key.Fingerprint() == ssh.FingerprintSHA256(s.PublicKey()) && !strings.Contains(strings.Join(strings.Fields(armoured), ""), strings.Join(strings.Fields(good), "")[:120]) {
			t.Errorf("%q is taken for it", armoured)
		}
	})
}
