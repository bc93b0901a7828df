package location

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"s3://nix":                              "s3://nix?endpoint=https://s3.us-east-1.amazonaws.com&region=us-east-1",
		"s3://nix/a/b/?region=eu-west-1":        "s3://nix/a/b?endpoint=https://s3.eu-west-1.amazonaws.com&region=eu-west-1",
		"s3://nix?endpoint=minio.lan:9000":      "s3://nix?endpoint=https://minio.lan:9000&region=us-east-1",
		"s3://nix?endpoint=[::1]:9&scheme=http": "s3://nix?endpoint=http://[::1]:9&region=us-east-1",
		"s3://nix?endpoint=http://minio.lan/":   "s3://nix?endpoint=http://minio.lan&region=us-east-1",
	} {
		l, err := Parse(text)
		if err != nil || l.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, l, err, want)
			continue
		}
		if again, err := Parse(l.String()); err != nil || *again.Endpoint != *l.Endpoint || again.Prefix != l.Prefix {
			t.Errorf("%s comes back as %+v, %v", text, again, err)
		}
	}
	for text, want := range map[string]string{
		"":                                  "not of the form",
		"https://nix":                       "not of the form",
		"s3:///a":                           "no bucket",
		"s3://key:secret@nix":               "a key does not go into the URL",
		"s3://nix?profile=x":                "takes endpoint, region and scheme",
		"s3://nix?region=a&region=b":        "once each",
		"s3://nix/a//b":                     "prefix",
		"s3://nix/.a":                       "prefix",
		"s3://nix?endpoint=ftp://a":         "endpoint",
		"s3://nix?endpoint=http://a/path":   "endpoint",
		"s3://nix?endpoint=http://u:p@a":    "endpoint",
		"s3://nix?endpoint=a&scheme=gopher": "endpoint",
	} {
		if l, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", text, l, err, want)
		}
	}
}
