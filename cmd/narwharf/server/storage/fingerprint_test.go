package storage

import (
	"testing"

	"narwharf/hooks/serverconfig"
)

// What may differ between servers differs not; what may not is seen, by its section.
func TestFingerprints(t *testing.T) {
	a, b := serverconfig.Default(), serverconfig.Default()
	b.Listen, b.DataDir, b.Log.Level, b.Signing.SecretKeyFiles = []string{"other:1"}, "/other", "debug", []string{"/other/key"}
	differ := func() (names []string) {
		of := Fingerprints(b)
		for name, print := range Fingerprints(a) {
			if of[name] != print {
				names = append(names, name)
			}
		}
		return names
	}
	if names := differ(); len(names) > 0 {
		t.Errorf("they differ in %v", names)
	}
	b.Signing.SignUploads = !b.Signing.SignUploads
	if names := differ(); len(names) != 1 || names[0] != "signing" {
		t.Errorf("another sign_uploads is seen as %v", names)
	}
}
