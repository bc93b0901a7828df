// Package awsiam proves which IAM role a machine has, by AWS's own word.
//
// A machine signs a request to the Security Token Service (STS) that asks who it is, and sends
// the signature here instead of the request. The server builds that very request itself and
// sends it with the signature: STS answers with account and role, or that the signature is none.
// Nothing of what the machine sends decides where the request goes, what it asks, or how the
// answer is read: a server that checks and forwards what it is given can be made to ask somebody
// else, who answers as he likes (CVE-2020-16250).
//
// # The request
//
//	POST / HTTP/1.1
//	Host: sts.REGION.amazonaws.com       from a list in this program
//	Accept: application/json
//	Content-Type: application/x-www-form-urlencoded; charset=utf-8
//	X-Amz-Date: 20260102T150405Z         of the machine
//	X-Amz-Security-Token: …              of the machine
//	X-Narwharf-Nonce: NONCE              the server's (package challenge)
//	X-Narwharf-Url: PUBLIC_URL           public_url of the server, without a slash at its end
//	Authorization: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…
//
//	Action=GetCallerIdentity&Version=2011-06-15
//
// All of these headers are signed (Signature Version 4), and no others. The nonce is for one host
// and instance. The URL keeps another server from having a nonce of this one signed for itself.
//
// # The answer
//
// It counts with status 200 alone, of at most 64 KiB, as exactly the JSON that this version of
// the API has, for an assumed role of the region's partition. Redirects are not followed. The
// name of a session is the choice of who assumes the role, and so nothing rests on it.
package awsiam

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"
)

const (
	service = "sts"
	body    = "Action=GetCallerIdentity&Version=2011-06-15"

	nonceHeader = "x-narwharf-nonce"
	urlHeader   = "x-narwharf-url"

	dateLayout = "20060102T150405Z"
)

// Proof is what a machine sends.
type Proof struct {
	Region       string `json:"region"`
	Date         string `json:"date"` // as X-Amz-Date
	AccessKeyID  string `json:"access_key_id"`
	SessionToken string `json:"session_token"`
	Signature    string `json:"signature"` // 64 hex digits
}

// Credentials are those of a role, as the metadata of an instance has them.
type Credentials struct {
	AccessKeyID, SecretAccessKey, SessionToken string
}

// partitions are the endpoints of STS: "" is what stands before and behind the region.
var partitions = []struct {
	name, suffix string
	regions      []string
}{
	{"aws", ".amazonaws.com", []string{
		"af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2",
		"ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7",
		"ca-central-1", "ca-west-1", "eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2",
		"eu-west-1", "eu-west-2", "eu-west-3", "il-central-1", "me-central-1", "me-south-1", "mx-central-1", "sa-east-1",
		"us-east-1", "us-east-2", "us-west-1", "us-west-2",
	}},
	{"aws-us-gov", ".amazonaws.com", []string{"us-gov-east-1", "us-gov-west-1"}},
	{"aws-cn", ".amazonaws.com.cn", []string{"cn-north-1", "cn-northwest-1"}},
}

// endpoint is the host of STS in a region, and the region's partition.
func endpoint(region string) (host, partition string, ok bool) {
	for _, p := range partitions {
		for _, r := range p.regions {
			if r == region {
				return "sts." + region + p.suffix, p.name, true
			}
		}
	}
	return "", "", false
}

// Grammars of what goes into the request. None lets a line end in a header.
var (
	dateGrammar      = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z$`)
	keyGrammar       = regexp.MustCompile(`^[A-Z0-9]{16,128}$`)
	tokenGrammar     = regexp.MustCompile(`^[A-Za-z0-9+/=_.-]{16,}$`)
	signatureGrammar = regexp.MustCompile(`^[0-9a-f]{64}$`)
	accountGrammar   = regexp.MustCompile(`^[0-9]{12}$`)
	roleGrammar      = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{1,64}$`)
)

// maxToken bounds a session token, in bytes: those of AWS have some hundreds, and may grow.
const maxToken = 8 << 10

// dateSlack is how far a machine's clock may be from ours: STS itself takes 15 minutes.
const dateSlack = 15 * time.Minute

// check refuses a proof that cannot be one. The error has nothing of it that is secret.
func (p *Proof) check(now time.Time) error {
	_, _, known := endpoint(p.Region)
	at, err := time.Parse(dateLayout, p.Date)
	switch {
	case !known:
		return fmt.Errorf("the region %.32q is none that this narwharf knows", p.Region)
	case !dateGrammar.MatchString(p.Date) || err != nil:
		return fmt.Errorf("the date %.32q is not written as 20260102T150405Z", p.Date)
	case now.Sub(at).Abs() > dateSlack:
		return fmt.Errorf("the date %s is more than 15 minutes from the server's: set the machine's clock", p.Date)
	case !keyGrammar.MatchString(p.AccessKeyID):
		return fmt.Errorf("access_key_id is none of AWS's")
	case len(p.SessionToken) > maxToken || !tokenGrammar.MatchString(p.SessionToken):
		return fmt.Errorf("session_token is missing or none of AWS's: only the credentials of a role have one, and only they are taken")
	case !signatureGrammar.MatchString(p.Signature):
		return fmt.Errorf("signature is not 64 hex digits")
	}
	return nil
}

// header is one that is signed, its name in lower case.
type header struct{ name, value string }

// headers are those that are signed, in order.
func (p *Proof) headers(host, nonce, publicURL string) []header {
	return []header{
		{"accept", "application/json"},
		{"content-type", "application/x-www-form-urlencoded; charset=utf-8"},
		{"host", host},
		{"x-amz-date", p.Date},
		{"x-amz-security-token", p.SessionToken},
		{nonceHeader, nonce},
		{urlHeader, publicURL},
	}
}

func names(headers []header) string {
	list := make([]string, len(headers))
	for i, h := range headers {
		list[i] = h.name
	}
	return strings.Join(list, ";")
}

// scope is for which day, region and service a signature is.
func scope(date, region, service string) string {
	return date[:8] + "/" + region + "/" + service + "/aws4_request"
}

// authorization is the header of that name.
func (p *Proof) authorization(headers []header) string {
	return fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s", p.AccessKeyID, scope(p.Date, p.Region, service), names(headers), p.Signature)
}

// signature is Signature Version 4 of a request without a query, with headers in order.
func signature(secret, date, region, service, method, path string, headers []header, body string) string {
	var canonical strings.Builder
	fmt.Fprintf(&canonical, "%s\n%s\n\n", method, path)
	for _, h := range headers {
		fmt.Fprintf(&canonical, "%s:%s\n", h.name, h.value)
	}
	fmt.Fprintf(&canonical, "\n%s\n%s", names(headers), hexSum(body))
	text := "AWS4-HMAC-SHA256\n" + date + "\n" + scope(date, region, service) + "\n" + hexSum(canonical.String())
	return hex.EncodeToString(mac(signingKey(secret, date, region, service), text))
}

func signingKey(secret, date, region, service string) []byte {
	key := []byte("AWS4" + secret)
	for _, part := range []string{date[:8], region, service, "aws4_request"} {
		key = mac(key, part)
	}
	return key
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Sign makes the proof of a machine with the credentials of its role.
func Sign(c Credentials, region, nonce, publicURL string, now time.Time) (Proof, error) {
	host, _, ok := endpoint(region)
	if !ok {
		return Proof{}, fmt.Errorf("the region %.32q is none that this narwharf knows", region)
	}
	p := Proof{Region: region, Date: now.UTC().Format(dateLayout), AccessKeyID: c.AccessKeyID, SessionToken: c.SessionToken}
	p.Signature = signature(c.SecretAccessKey, p.Date, region, service, "POST", "/", p.headers(host, nonce, publicURL), body)
	return p, p.check(now)
}
