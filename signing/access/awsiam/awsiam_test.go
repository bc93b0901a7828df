package awsiam

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

var (
	now   = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	creds = Credentials{"ASIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjEXAMPLE//token=="}
)

const (
	nonce     = "bm9uY2U"
	publicURL = "https://cache.example.org"
)

// TestVectors: signatures that AWS's documentation and its test suite of Signature Version 4 have.
func TestVectors(t *testing.T) {
	const secret, date = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830T123600Z"
	if got := hex.EncodeToString(signingKey(secret, date, "us-east-1", "iam")); got != "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9" {
		t.Errorf("the derived key is %s", got)
	}
	at := []header{{"host", "example.amazonaws.com"}, {"x-amz-date", date}}
	for _, v := range []struct {
		name, method string
		headers      []header
		body, want   string
	}{
		{"get-vanilla", "GET", at, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"post-vanilla", "POST", at, "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{"post-x-www-form-urlencoded", "POST", append([]header{{"content-type", "application/x-www-form-urlencoded"}}, at...), "Param1=value1",
			"ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
	} {
		if got := signature(secret, date, "us-east-1", "service", v.method, "/", v.headers, v.body); got != v.want {
			t.Errorf("%s: %s", v.name, got)
		}
	}
}

func TestSign(t *testing.T) {
	p, err := Sign(creds, "eu-central-1", nonce, publicURL, now)
	if err != nil {
		t.Fatal(err)
	}
	if p.Date != "20260102T150405Z" || p.Region != "eu-central-1" || len(p.Signature) != 64 {
		t.Errorf("%+v", p)
	}
	for name, other := range map[string]func() (Proof, error){
		"nonce":  func() (Proof, error) { return Sign(creds, "eu-central-1", "b3RoZXI", publicURL, now) },
		"url":    func() (Proof, error) { return Sign(creds, "eu-central-1", nonce, "https://other.example.org", now) },
		"region": func() (Proof, error) { return Sign(creds, "eu-west-1", nonce, publicURL, now) },
		"date":   func() (Proof, error) { return Sign(creds, "eu-central-1", nonce, publicURL, now.Add(time.Second)) },
		"token": func() (Proof, error) {
			c := creds
			c.SessionToken += "x"
			return Sign(c, "eu-central-1", nonce, publicURL, now)
		},
	} {
		if o, err := other(); err != nil || o.Signature == p.Signature {
			t.Errorf("the signature does not bind the %s (%v)", name, err)
		}
	}
	if _, err := Sign(creds, "mars-1", nonce, publicURL, now); err == nil {
		t.Error("signed for mars-1")
	}
	if _, err := Sign(Credentials{AccessKeyID: creds.AccessKeyID, SecretAccessKey: "x"}, "eu-west-1", nonce, publicURL, now); err == nil || !strings.Contains(err.Error(), "session_token") {
		t.Errorf("of a user: %v", err)
	}
}

func TestEndpoints(t *testing.T) {
	for region, want := range map[string]string{
		"us-east-1": "sts.us-east-1.amazonaws.com aws", "cn-north-1": "sts.cn-north-1.amazonaws.com.cn aws-cn", "us-gov-west-1": "sts.us-gov-west-1.amazonaws.com aws-us-gov",
		"": " ", "us-east-1.evil.example": " ", "us-east-1/": " ", "US-EAST-1": " ", "evil.example#": " ",
	} {
		host, partition, ok := endpoint(region)
		if host+" "+partition != want || ok != (want != " ") {
			t.Errorf("%q: %s %s %v", region, host, partition, ok)
		}
	}
}

func TestCheckRule(t *testing.T) {
	if err := CheckRule("123456789012", "narwharf-host"); err != nil {
		t.Error(err)
	}
	for _, c := range [][2]string{{"1234", "x"}, {"*", "x"}, {"123456789012", ""}, {"123456789012", "host-*"}, {"123456789012", "path/host"}} {
		if err := CheckRule(c[0], c[1]); err == nil {
			t.Errorf("%v is taken", c)
		}
	}
}
