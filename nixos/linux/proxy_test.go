package linux

import (
	"maps"
	"slices"
	"testing"
)

func TestChangedProxy(t *testing.T) {
	then := map[string]string{"HTTPS_PROXY": "http://a", "NO_PROXY": "x", "SSL_CERT_FILE": "/ca"}
	now := map[string]string{"HTTPS_PROXY": "http://b", "http_proxy": "http://c", "SSL_CERT_FILE": "/ca"}
	if got := changedProxy(then, now); !slices.Equal(got, []string{"HTTPS_PROXY=http://b", "http_proxy=http://c", "NO_PROXY="}) {
		t.Errorf("%q", got)
	}
	if changedProxy(then, nil) != nil || changedProxy(then, maps.Clone(then)) != nil {
		t.Error("a change where there is none")
	}
}
