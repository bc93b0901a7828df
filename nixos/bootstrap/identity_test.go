package bootstrap

import (
	"os/exec"
	"strings"
	"testing"

	"narwharf/nixos/identity"
)

// TestBootstrapWithoutSecret: with an identity there is nothing in the script that is to be kept from others.
func TestBootstrapWithoutSecret(t *testing.T) {
	for how, want := range map[string]string{"ssh": "kind = 'ssh'", "aws": "kind = 'aws'", "gcp": "from = 'gcp'", "azure": "audience = 'api://narwharf'"} {
		b := sampleScript(t)
		b.JoinToken = ""
		if how == "azure" {
			b.Identity.Audience = "api://narwharf"
		}
		if err := b.SetIdentity(how); err != nil {
			t.Fatal(err)
		}
		if err := b.CheckJoinToken(t.Context(), ""); err != nil {
			t.Error(err)
		}
		text := b.mustScript(t)
		if strings.Contains(text, "join_token_file") || !strings.Contains(text, "It holds no secret") || !strings.Contains(strings.ReplaceAll(text, `'\''`, "'"), want) ||
			!strings.Contains(text, "\njoin_token=''\n") || !strings.Contains(text, "\nidentity='"+how+"'\n") {
			t.Errorf("%s: %s", how, text[:2000])
		}
		if shellcheck, err := exec.LookPath("shellcheck"); err == nil {
			c := exec.Command(shellcheck, "-s", "sh", "-")
			c.Stdin = strings.NewReader(text)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%s: %s", how, out)
			}
		}
	}
	b := sampleScript(t)
	if err := b.SetIdentity("azure"); err == nil || !strings.Contains(err.Error(), "audience") {
		t.Error(err)
	}
	if err := b.SetIdentity("tpm"); err == nil {
		t.Error("tpm is known")
	}
	b.Identity = identity.Config{}
	b.JoinToken = ""
	if _, err := b.Text(); err == nil {
		t.Error("neither token nor identity")
	}
}
