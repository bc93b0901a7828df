package address

import "testing"

func TestPrivate(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:443":            true,
		"[::1]:443":                true,
		"10.1.2.3:443":             true,
		"192.168.0.1:443":          true,
		"169.254.169.254:80":       true,
		"100.64.0.1:443":           true,
		"0.0.0.0:443":              true,
		"240.0.0.1:443":            true,
		"[fe80::1%eth0]:443":       true,
		"[fd00::1]:443":            true,
		"[::ffff:10.0.0.1]:443":    true,
		"[64:ff9b::a00:1]:443":     true,
		"[2002:a00:1::]:443":       true,
		"[ff02::1]:443":            true,
		"/run/socket":              true,
		"example.org:443":          true,
		"":                         true,
		"192.0.2.1:443":            false,
		"140.82.112.3:443":         false,
		"[2606:50c0:8000::1]:443":  false,
		"151.101.1.91:443":         false,
		"[::ffff:140.82.112.3]:80": false,
	} {
		if got := Private(address); got != want {
			t.Errorf("Private(%s) = %v", address, got)
		}
	}
}
