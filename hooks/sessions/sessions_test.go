package sessions

import (
	"testing"

	"narwharf/signing/access"
	"narwharf/signing/access/session"
)

// Whose a session is: the subject's of one issuer, or the token's that began it. A subject that
// somebody else speaks of in the same words is another.
func TestWhoseSession(t *testing.T) {
	byLogin := access.Grant{Kind: session.Kind, Issuer: "corp", Rule: "people", Subject: "alice"}
	byToken := access.Grant{Kind: session.Kind, Rule: "ci", Subject: "0123456789"}
	for _, c := range []struct {
		what         string
		who          access.Principal
		login, token bool
	}{
		{"the session itself", access.Principal{Grant: byLogin}, true, false},
		{"a token of her login", access.Principal{TokenID: "sh0rt12345", Grant: access.Grant{Kind: "oidc", Issuer: "corp", Subject: "alice"}}, true, false},
		{"another person of the issuer", access.Principal{Grant: access.Grant{Kind: "oidc", Issuer: "corp", Subject: "bob"}}, false, false},
		{"her name at another issuer", access.Principal{Grant: access.Grant{Kind: "oidc", Issuer: "forge", Subject: "alice"}}, false, false},
		{"the token", access.Principal{TokenID: "0123456789"}, false, true},
		{"the session of the token", access.Principal{TokenID: "sh0rt12345", Grant: byToken}, false, true},
		{"another token", access.Principal{TokenID: "9876543210"}, false, false},
		{"a certificate whose subject is the id of the token", access.Principal{TokenID: "certificate/x:0123456789", Grant: access.Grant{Kind: "certificate", Subject: "0123456789"}}, false, false},
		{"a machine whose subject is", access.Principal{Grant: access.Grant{Kind: "ssh", Subject: "0123456789"}}, false, false},
		{"nobody", access.Principal{}, false, false},
	} {
		if l, k := isOf(&byLogin, &c.who), isOf(&byToken, &c.who); l != c.login || k != c.token {
			t.Errorf("%s: that of the login %v, that of the token %v", c.what, l, k)
		}
	}
	if isOf(&access.Grant{Kind: session.Kind}, &access.Principal{}) {
		t.Error("a session of nobody is somebody's")
	}
}
