package external

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"narwharf/signing"
)

// TestPKCS11: a token that speaks PKCS #11, by OpenSC's program: SoftHSM here, a YubiKey or an HSM in its place.
// docs/channels.md names these command lines.
func TestPKCS11(t *testing.T) {
	const module = "/usr/lib/softhsm/libsofthsm2.so"
	for _, name := range []string{"softhsm2-util", "pkcs11-tool", "openssl", module} {
		if _, err := exec.LookPath(name); err != nil && (name != module || !exists(name)) {
			if os.Getenv("NARWHARF_CI") == "1" {
				t.Fatalf("%s is missing, and NARWHARF_CI=1 wants every test run", name)
			}
			t.Skipf("skipped: %s is missing (apt-get install softhsm2 opensc)", name)
		}
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"/tokens\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	run := func(name string, args ...string) []byte {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s %q: %v", name, args, err)
		}
		return out
	}
	run("softhsm2-util", "--init-token", "--free", "--label", "fleet", "--pin", "1234", "--so-pin", "5678")
	make := func(kind, id string) any {
		t.Helper()
		run("pkcs11-tool", "--module", module, "--login", "--pin", "1234", "--keypairgen", "--key-type", kind, "--id", id)
		file := filepath.Join(dir, id)
		run("pkcs11-tool", "--module", module, "--read-object", "--type", "pubkey", "--id", id, "--output-file", file)
		der, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(der); block != nil { // as it writes Ed25519 keys
			der = block.Bytes
		}
		public, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			t.Fatalf("%s: %v (%x)", kind, err, der)
		}
		return public
	}
	ec, ok := make("EC:prime256v1", "01").(*ecdsa.PublicKey)
	if !ok {
		t.Fatal("it is no P-256 key")
	}
	point, err := ec.Bytes() // 4, X, Y; keys are compressed
	if err != nil {
		t.Fatal(err)
	}
	releases, err := signing.ParsePromoterKey("alice-2:ecdsa-p256:" + base64.StdEncoding.EncodeToString(append([]byte{2 + point[64]&1}, point[1:33]...)))
	if err != nil {
		t.Fatal(err)
	}
	ed, ok := make("EC:edwards25519", "02").(ed25519.PublicKey)
	if !ok {
		t.Fatal("it is no Ed25519 key")
	}
	paths, err := signing.ParsePublicKey("ci-1:" + base64.StdEncoding.EncodeToString(ed))
	if err != nil {
		t.Fatal(err)
	}
	tool := "pkcs11-tool --module " + module + " --login --pin 1234 --sign "
	for _, tt := range []struct {
		key  signing.PublicKey
		line string
	}{
		{releases, "openssl dgst -sha256 -binary | " + tool + "--id 01 --mechanism ECDSA --signature-format openssl"},
		{paths, tool + "--id 02 --mechanism EDDSA"},
	} {
		for range 2 {
			c := &Command{Key: tt.key, Argv: Shell(tt.line)}
			msg := []byte("narwharf/head/v1\n2\n{}")
			if sig, err := c.Signature(msg); err != nil || !tt.key.Verify(msg, sig) {
				t.Errorf("%s: %v", tt.key.Name(), err)
			}
		}
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
