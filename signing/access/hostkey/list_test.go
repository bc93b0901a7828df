package hostkey

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // known_hosts(5)
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// line is a host's in known_hosts.
func line(name string, key ssh.PublicKey) string {
	return name + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func hashed(host string, salt byte) string {
	s := []byte(strings.Repeat(string(salt), 20))
	mac := hmac.New(sha1.New, s)
	mac.Write([]byte(host))
	return "|1|" + base64.StdEncoding.EncodeToString(s) + "|" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestList(t *testing.T) {
	a, b, c, d := newED25519(t).PublicKey(), newED25519(t).PublicKey(), newRSA(t, 2048).PublicKey(), newED25519(t).PublicKey()
	text := strings.Join([]string{
		"# web", "", line("web-1", a), line("web-1", c) + " root@web-1", line("web-1", a), "  " + line(hashed("web-2", 's'), b) + "\r",
		line("web-4", d), "@revoked " + line("*", d),
	}, "\n")
	l, err := ParseList([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if l.Len() != 4 {
		t.Errorf("%d keys", l.Len())
	}
	for _, x := range []struct {
		host string
		key  ssh.PublicKey
		want Standing
	}{
		{"web-1", a, Listed}, {"web-1", c, Listed}, {"web-2", b, Listed},
		{"web-2", a, Another}, {"web-1", b, Another}, {"web-3", b, Another},
		{"web-4", d, Revoked}, {"web-1", d, Revoked},
		{"web-1", newED25519(t).PublicKey(), Unlisted},
	} {
		if got := l.Look(x.host, ssh.FingerprintSHA256(x.key)); got != x.want {
			t.Errorf("%s with %s: %d, want %d", x.host, ssh.FingerprintSHA256(x.key), got, x.want)
		}
	}
	var none *List
	if none.Look("web-1", ssh.FingerprintSHA256(a)) != Unlisted || none.Len() != 0 {
		t.Error("no list has a key")
	}
}

func TestListRefusals(t *testing.T) {
	a, b := newED25519(t).PublicKey(), newED25519(t).PublicKey()
	for name, c := range map[string]struct{ text, want string }{
		"a wildcard":           {line("web-1", b) + "\n" + line("web-*", a), "line 2: the name \"web-*\" is a pattern"},
		"one letter":           {line("web-?", a), "is a pattern"},
		"an exclusion":         {line("!web-1", a), "excludes"},
		"a port":               {line("[web-1]:2222", a), "has a port"},
		"an authority":         {"\n\n@cert-authority " + line("*", a), "line 3: @cert-authority is refused"},
		"another marker":       {"@trusted " + line("web-1", a), "@trusted"},
		"two names":            {line("web-1,10.0.0.1", a), "web-1 and 10.0.0.1"},
		"one key for two":      {line("web-1", a) + "\n# x\n" + line("web-2", a), "line 3: the key " + ssh.FingerprintSHA256(a) + " stands in line 1"},
		"one key, one hashed":  {line("web-1", a) + "\n" + line(hashed("web-2", 's'), a), "line 2: the key"},
		"one key, both hashed": {line(hashed("web-1", 's'), a) + "\n" + line(hashed("web-1", 't'), a), "line 2: the key"},
		"a damaged hash":       {line("|1|x|y", a), "damaged"},
		"another hash":         {line("|2|eA==|eA==", a), "is not the name of a host"},
		"no key":               {"web-1", "line 1: it is no line"},
		"half a key":           {line("web-1", a)[:40], "it is no line"},
		"another type":         {strings.Replace(line("web-1", a), "ssh-ed25519", "ssh-rsa", 1), "it is no line"},
		"a short key":          {line("web-1", newRSA(t, 1024).PublicKey()), "1024 bits"},
		"a token's key":        {"web-1 sk-ssh-ed25519@openssh.com " + base64.StdEncoding.EncodeToString(ssh.Marshal(struct{ Type, Key, Application string }{ssh.KeyAlgoSKED25519, strings.Repeat("k", 32), "ssh:"})), "sk-ssh-ed25519"},
	} {
		if _, err := ParseList([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	same := line("web-1", a) + "\n" + line(hashed("web-1", 's'), a) + "\n" + line("web-1", a)
	if l, err := ParseList([]byte(same)); err != nil || l.Look("web-1", ssh.FingerprintSHA256(a)) != Listed {
		t.Errorf("one host twice, hashed and not: %v", err)
	}
	if _, err := ParseList(make([]byte, maxList+1)); err == nil {
		t.Error("too large")
	}
}

// TestLongList: a list of 10,000 hosts is read and answers at once.
func TestLongList(t *testing.T) {
	s := newED25519(t)
	raw := s.PublicKey().Marshal()
	var b strings.Builder
	for i := range 10_000 {
		raw[len(raw)-1], raw[len(raw)-2] = byte(i), byte(i>>8)
		fmt.Fprintf(&b, "%s ssh-ed25519 %s\n", hashed(fmt.Sprint("web-", i), 's'), base64.StdEncoding.EncodeToString(raw))
	}
	l, err := ParseList([]byte(b.String()))
	if err != nil || l.Len() != 10_000 {
		t.Fatal(l.Len(), err)
	}
}

func FuzzParseList(f *testing.F) {
	f.Add("web-1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJSPyjs3tjgu1G/PHC5Lk6CPRjGhgQvO1X5B+yHZGZNE\n@revoked * ssh-ed25519 AAAA\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = ParseList([]byte(text)) })
}
