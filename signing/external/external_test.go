package external

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/signing"
)

func generate(t *testing.T, p256 bool) signing.SecretKey {
	t.Helper()
	make := signing.GenerateKey
	if p256 {
		make = signing.GenerateP256
	}
	k, err := make("alice-1")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestForms: each form in which programs write a signature is taken.
func TestForms(t *testing.T) {
	k, msg := generate(t, false), []byte("a statement\n")
	sig := k.Sign(msg)
	_, digits, _ := strings.Cut(sig, ":")
	raw, err := base64.StdEncoding.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "out")
	for name, out := range map[string]string{"name:base64": sig, "base64": digits + "\n", "bytes": string(raw), "another name": "x:" + digits} {
		if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &Command{Key: k.Public(), Argv: []string{"/bin/sh", "-c", `test "$NARWHARF_SIGN_KEY" = alice-1 && cmp -s - "$1" || cat "$2"`, "sh", "/dev/null", file}}
		if got, err := c.Signature(msg); err != nil || got != sig {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestRefused: what is no signature by the key is not given to anybody.
func TestRefused(t *testing.T) {
	k, other, msg := generate(t, false), generate(t, false), []byte("a statement")
	for name, tt := range map[string]struct{ line, want string }{
		"another key's":  {"printf %s '" + other.Sign(msg) + "'", "does it sign with another key?"},
		"of other bytes": {"printf %s '" + k.Sign([]byte("another")) + "'", "does it sign with another key?"},
		"nothing":        {"true", "wrote 0 bytes that are no signature"},
		"words":          {"echo signed!", "wrote 8 bytes that are no signature"},
		"without end":    {"yes", "more than 4096 bytes"},
		"a failure":      {"echo no such token >&2; exit 3", "(exit status 3): no such token"},
		"dumb failure":   {"exit 3", "the command failed: exit status 3"},
		"too slow":       {"sleep 100 & sleep 100", "no answer in 300ms"},
	} {
		c := &Command{Key: k.Public(), Argv: Shell(tt.line), Timeout: 300 * time.Millisecond}
		if name != "too slow" && name != "without end" {
			c.Timeout = 0
		}
		start := time.Now()
		_, err := c.Signature(msg)
		if err == nil && name == "without end" || err == nil || !strings.Contains(err.Error(), tt.want) && name != "without end" {
			t.Errorf("%s: %v", name, err)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%s took %s", name, d)
		}
	}
	c := &Command{Key: k.Public(), Argv: []string{"/no/such/program"}}
	if _, err := c.Signature(msg); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no program: %v", err)
	}
}

// TestStderr: what a command says while it waits for a touch is passed on.
func TestStderr(t *testing.T) {
	k, msg := generate(t, false), []byte("a statement")
	var said strings.Builder
	c := &Command{Key: k.Public(), Argv: Shell("echo touch it >&2; printf %s '" + k.Sign(msg) + "'"), Stderr: &said}
	if _, err := c.Signature(msg); err != nil || said.String() != "touch it\n" {
		t.Errorf("%q, %v", &said, err)
	}
}

// TestOpenSSL: docs/channels.md names these command lines.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatal("openssl is missing, and NARWHARF_CI=1 wants every test run")
		}
		t.Skip("skipped: openssl is missing")
	}
	dir, msg := t.TempDir(), []byte("narwharf/head/v1\n2\n{}")
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command(openssl, args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %s: %v", args, err)
		}
		return out
	}
	run("genpkey", "-algorithm", "ed25519", "-out", "ed.pem")
	block, _ := pem.Decode(run("pkey", "-in", "ed.pem", "-pubout"))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	ed, err := signing.ParsePublicKey("alice-1:" + base64.StdEncoding.EncodeToString(public.(ed25519.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "in")
	if err := os.WriteFile(file, msg, 0o600); err != nil {
		t.Fatal(err)
	}
	run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ec.pem")
	der := run("ec", "-in", "ec.pem", "-pubout", "-conv_form", "compressed", "-outform", "DER")
	ec, err := signing.ParsePromoterKey("alice-2:ecdsa-p256:" + base64.StdEncoding.EncodeToString(der[len(der)-33:]))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key  signing.PublicKey
		line string
	}{
		// Ed25519 is signed in one go: openssl wants a file whose size it knows.
		{ed, `f=$(mktemp) && cat >"$f" && openssl pkeyutl -sign -rawin -inkey ` + dir + `/ed.pem -in "$f"; rm -f "$f"`},
		{ec, `openssl dgst -sha256 -sign ` + dir + `/ec.pem`},
	} {
		for range 4 { // half of all signatures have the higher s
			c := &Command{Key: tt.key, Argv: Shell(tt.line)}
			sig, err := c.Signature(msg)
			if err != nil || !tt.key.Verify(msg, sig) {
				t.Errorf("%s: %v", tt.key.Name(), err)
			}
		}
	}
}
