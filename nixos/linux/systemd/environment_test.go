package systemd

import (
	"errors"
	"maps"
	"slices"
	"testing"
)

func TestEnvironment(t *testing.T) {
	files := map[string]string{
		"/etc/proxy.env": "# ours\nHTTPS_PROXY=http://u:p%40x@proxy:3128\n https_proxy='http://small:3128' \nTOKEN=x\n\n",
		"/etc/more.env":  "NO_PROXY=\"a.example,b.example\"\n",
	}
	read := func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, errors.New("none")
	}
	for show, want := range map[string]map[string]string{
		"": {},
		"Environment=PATH=/bin HTTPS_PROXY=http://proxy:3128 \"NO_PROXY=a, \\\"b\\\"\"\n":          {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": `a, "b"`},
		"Environment=\nEnvironmentFiles=/etc/none (ignore_errors=yes)\n":                           {},
		"Environment=HTTPS_PROXY=http://other\nEnvironmentFiles=/etc/proxy.env (ignore_errors=no)": {"HTTPS_PROXY": "http://u:p%40x@proxy:3128", "https_proxy": "http://small:3128"},
		"EnvironmentFiles=/etc/proxy.env (ignore_errors=no)\nEnvironmentFiles=/etc/more.env (ignore_errors=yes)\nEnvironment=SSL_CERT_FILE=/ca\n": {
			"HTTPS_PROXY": "http://u:p%40x@proxy:3128", "https_proxy": "http://small:3128", "NO_PROXY": "a.example,b.example", "SSL_CERT_FILE": "/ca"},
	} {
		if got := environment(show, []string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "SSL_CERT_FILE"}, read); !maps.Equal(got, want) {
			t.Errorf("%s: %q, want %q", show, got, want)
		}
	}
}

func TestChanges(t *testing.T) {
	names := []string{"HTTPS_PROXY", "http_proxy", "NO_PROXY", "SSL_CERT_FILE"}
	then := map[string]string{"HTTPS_PROXY": "http://a", "NO_PROXY": "x", "SSL_CERT_FILE": "/ca"}
	now := map[string]string{"HTTPS_PROXY": "http://b", "http_proxy": "http://c", "SSL_CERT_FILE": "/ca"}
	if got := Changes(names, then, now); !slices.Equal(got, []string{"HTTPS_PROXY=http://b", "http_proxy=http://c", "NO_PROXY="}) {
		t.Errorf("%q", got)
	}
	if Changes(names, then, nil) != nil || Changes(names, then, maps.Clone(then)) != nil {
		t.Error("a change where there is none")
	}
}
