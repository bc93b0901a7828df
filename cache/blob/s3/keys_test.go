package s3

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestKeys(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "word")
	if _, err := Keys(""); err == nil || !strings.Contains(err.Error(), "credentials_file") {
		t.Error(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	if k, err := Keys(""); err != nil {
		t.Error(err)
	} else if v, err := k.GetWithContext(nil); err != nil || v.AccessKeyID != "id" || v.SecretAccessKey != "word" {
		t.Error(v.AccessKeyID, err)
	}
	name := filepath.Join(t.TempDir(), "key")
	write := func(text string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	for text, want := range map[string]string{
		"": "lacks", "aws_access_key_id = a": "lacks", "word": "not of the form",
		"aws_access_key_id=a\naws_secret_access_key=word\naws_access_key_id=b": "more than one",
	} {
		write(text, now)
		if _, err := Keys(name); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "word") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	write("[default]\n# a key\naws_access_key_id = a\nAWS_SECRET_ACCESS_KEY=b=\nregion = x\n", now)
	k, err := Keys(name)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"a b=", "c d", "c d"} {
		switch i {
		case 1:
			write("aws_access_key_id = c\naws_secret_access_key=d\n", now.Add(time.Second))
		case 2:
			write("half", now.Add(2*time.Second))
		}
		if v, err := k.GetWithContext(nil); err != nil || v.AccessKeyID+" "+v.SecretAccessKey != want {
			t.Errorf("%d: %s, %v; want %s", i, v.AccessKeyID, err, want)
		}
	}
}
