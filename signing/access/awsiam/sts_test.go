package awsiam

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"
)

// sts pretends to be that of AWS, for one secret key: it checks the signature of what it is sent.
type sts struct {
	t        *testing.T
	secret   string
	account  string
	arn      string
	answer   func() *http.Response // instead of its own
	requests []string              // as they go over the wire
	hosts    []string
}

func (s *sts) RoundTrip(req *http.Request) (*http.Response, error) {
	wire, err := httputil.DumpRequestOut(req, true)
	if err != nil {
		return nil, err
	}
	s.requests, s.hosts = append(s.requests, string(wire)), append(s.hosts, req.URL.Scheme+"://"+req.URL.Host)
	if s.answer != nil {
		return s.answer(), nil
	}
	if !s.signed(req) {
		return respond(403, "text/xml", "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>"), nil
	}
	return respond(200, "application/json", caller(s.account, s.arn)), nil
}

// signed makes the signature again from what came, as AWS does.
func (s *sts) signed(req *http.Request) bool {
	text, err := io.ReadAll(req.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var credential, list, sig string
	for _, part := range strings.Split(strings.TrimPrefix(req.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ", ") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "Credential":
			credential = value
		case "SignedHeaders":
			list = value
		case "Signature":
			sig = value
		}
	}
	var headers []header
	for _, name := range strings.Split(list, ";") {
		value := req.Header.Get(name)
		if name == "host" {
			value = req.URL.Host
		}
		headers = append(headers, header{name, value})
	}
	scope := strings.Split(credential, "/")
	return len(scope) == 5 && hmac.Equal([]byte(sig), []byte(signature(s.secret, req.Header.Get("X-Amz-Date"), scope[2], scope[3], req.Method, req.URL.Path, headers, string(text))))
}

func respond(status int, kind, text string) *http.Response {
	return &http.Response{StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(text))}
}

func caller(account, arn string) string {
	return fmt.Sprintf(`{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":%q,"Arn":%q,"UserId":"AROAEXAMPLE:i-0abc"},"ResponseMetadata":{"RequestId":"01234567-89ab"}}}`, account, arn)
}

const roleARN = "arn:aws:sts::123456789012:assumed-role/narwharf-host/i-0abc"

func newSTS(t *testing.T) (*sts, *STS) {
	t.Helper()
	aws := &sts{t: t, secret: creds.SecretAccessKey, account: "123456789012", arn: roleARN}
	return aws, New(aws, func() time.Time { return now })
}

func proof(t *testing.T) Proof {
	t.Helper()
	p, err := Sign(creds, "eu-central-1", nonce, publicURL, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRequest: what is sent, byte for byte.
func TestRequest(t *testing.T) {
	aws, s := newSTS(t)
	p := proof(t)
	id, err := s.Identify(t.Context(), p, nonce, publicURL)
	if err != nil || id != (Identity{"123456789012", "narwharf-host", "i-0abc", roleARN}) {
		t.Fatalf("%+v, %v", id, err)
	}
	want := strings.ReplaceAll(`POST / HTTP/1.1
Host: sts.eu-central-1.amazonaws.com
User-Agent: narwharf
Content-Length: 43
Accept: application/json
Authorization: AWS4-HMAC-SHA256 Credential=ASIAIOSFODNN7EXAMPLE/20260102/eu-central-1/sts/aws4_request, SignedHeaders=accept;content-type;host;x-amz-date;x-amz-security-token;x-narwharf-nonce;x-narwharf-url, Signature=`+p.Signature+`
Content-Type: application/x-www-form-urlencoded; charset=utf-8
X-Amz-Date: 20260102T150405Z
X-Amz-Security-Token: IQoJb3JpZ2luX2VjEXAMPLE//token==
X-Narwharf-Nonce: bm9uY2U
X-Narwharf-Url: https://cache.example.org
Accept-Encoding: gzip

`, "\n", "\r\n") + "Action=GetCallerIdentity&Version=2011-06-15"
	// DumpRequestOut has a transport of its own, which asks for gzip; ours does not.
	if len(aws.requests) != 1 || aws.requests[0] != want {
		t.Errorf("sent %q, want %q", aws.requests, want)
	}
	if aws.hosts[0] != "https://sts.eu-central-1.amazonaws.com" {
		t.Errorf("sent to %s", aws.hosts[0])
	}
}

// TestSignedForOthers: a signature over another nonce or for another server is none, nor is
// one by other credentials.
func TestSignedForOthers(t *testing.T) {
	aws, s := newSTS(t)
	for name, ask := range map[string]func() (Identity, error){
		"another nonce":  func() (Identity, error) { return s.Identify(t.Context(), proof(t), "b3RoZXI", publicURL) },
		"another server": func() (Identity, error) { return s.Identify(t.Context(), proof(t), nonce, "https://evil.example") },
		"another region": func() (Identity, error) {
			p := proof(t)
			p.Region = "eu-west-1"
			return s.Identify(t.Context(), p, nonce, publicURL)
		},
		"another secret": func() (Identity, error) {
			c := creds
			c.SecretAccessKey = "another"
			p, err := Sign(c, "eu-central-1", nonce, publicURL, now)
			if err != nil {
				t.Fatal(err)
			}
			return s.Identify(t.Context(), p, nonce, publicURL)
		},
	} {
		if _, err := ask(); err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "does not take the signature (status 403)") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, h := range aws.hosts {
		if !strings.HasPrefix(h, "https://sts.") || !strings.HasSuffix(h, ".amazonaws.com") {
			t.Errorf("something was sent to %s", h)
		}
	}
}

// TestProofsThatAreNone: nothing is sent anywhere for what would change the request
// (CVE-2020-16250 and what is like it).
func TestProofsThatAreNone(t *testing.T) {
	aws, s := newSTS(t)
	for name, change := range map[string]func(*Proof){
		"a host as region":       func(p *Proof) { p.Region = "evil.example/" },
		"a region with user":     func(p *Proof) { p.Region = "us-east-1@evil.example" },
		"a region with fragment": func(p *Proof) { p.Region = "evil.example#" },
		"no region":              func(p *Proof) { p.Region = "" },
		"a header in the token":  func(p *Proof) { p.SessionToken += "\r\nHost: evil.example" },
		"a header in the date":   func(p *Proof) { p.Date += "\nX: y" },
		"a header in the key":    func(p *Proof) { p.AccessKeyID += "\r\nX: y" },
		"another scope": func(p *Proof) {
			p.AccessKeyID = "ASIAIOSFODNN7EXAMPLE/20260102/us-east-1/iam/aws4_request, SignedHeaders=host"
		},
		"more of Authorization": func(p *Proof) { p.Signature += ", SignedHeaders=host" },
		"no signature":          func(p *Proof) { p.Signature = "" },
		"upper case":            func(p *Proof) { p.Signature = strings.ToUpper(p.Signature[:63]) + "A" },
		"no token":              func(p *Proof) { p.SessionToken = "" },
		"a long token":          func(p *Proof) { p.SessionToken = strings.Repeat("a", 8193) },
		"an old date":           func(p *Proof) { p.Date = "20260102T144904Z" },
		"a late date":           func(p *Proof) { p.Date = "20260102T151906Z" },
		"no date":               func(p *Proof) { p.Date = "20261302T150405Z" },
	} {
		p := proof(t)
		change(&p)
		_, err := s.Identify(t.Context(), p, nonce, publicURL)
		if err == nil || errors.Is(err, ErrUnavailable) || len(err.Error()) > 200 || strings.Contains(err.Error(), creds.SessionToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(aws.requests) > 0 {
		t.Errorf("sent %q", aws.requests)
	}
}

// TestAnswers: an answer that is not exactly that of STS about a role says nothing.
func TestAnswers(t *testing.T) {
	good := caller("123456789012", roleARN)
	for name, c := range map[string]struct {
		status      int
		kind, text  string
		unavailable bool
	}{
		"XML":                   {200, "text/xml", "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>" + roleARN + "</Arn><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>", false},
		"XML that says JSON":    {200, "application/json", "<GetCallerIdentityResponse/>", false},
		"JSON that says XML":    {200, "text/xml", good, false},
		"no type":               {200, "", good, false},
		"created":               {201, "application/json", good, false},
		"a redirect":            {307, "application/json", good, false},
		"denied":                {403, "application/json", good, false},
		"a fault":               {500, "application/json", good, true},
		"busy":                  {429, "application/json", good, true},
		"a long one":            {200, "application/json", good + strings.Repeat(" ", maxAnswer), false},
		"two":                   {200, "application/json", good + good, false},
		"an array":              {200, "application/json", "[" + good + "]", false},
		"a name twice":          {200, "application/json", strings.Replace(good, `"Account":"123456789012"`, `"Account":"999999999999","Account":"123456789012"`, 1), false},
		"another spelling":      {200, "application/json", strings.Replace(good, `"Arn"`, `"ARN"`, 1), false},
		"another member":        {200, "application/json", strings.Replace(good, `"Account"`, `"Other":1,"Account"`, 1), false},
		"another member on top": {200, "application/json", `{"Other":1,` + good[1:], false},
		"a missing one":         {200, "application/json", strings.Replace(good, `,"UserId":"AROAEXAMPLE:i-0abc"`, "", 1), false},
		"a number":              {200, "application/json", strings.Replace(good, `"123456789012",`, `123456789012,`, 1), false},
		"a user":                {200, "application/json", caller("123456789012", "arn:aws:iam::123456789012:user/narwharf-host"), false},
		"a user like a role":    {200, "application/json", caller("123456789012", "arn:aws:iam::123456789012:user/assumed-role/narwharf-host/x"), false},
		"a federated user":      {200, "application/json", caller("123456789012", "arn:aws:sts::123456789012:federated-user/narwharf-host"), false},
		"the root":              {200, "application/json", caller("123456789012", "arn:aws:iam::123456789012:root"), false},
		"another account's":     {200, "application/json", caller("999999999999", roleARN), false},
		"no account":            {200, "application/json", caller("", strings.Replace(roleARN, "123456789012", "", 1)), false},
		"another partition":     {200, "application/json", caller("123456789012", strings.Replace(roleARN, "arn:aws:", "arn:aws-cn:", 1)), false},
		"a slash in a session":  {200, "application/json", caller("123456789012", roleARN+"/x"), false},
		"no session":            {200, "application/json", caller("123456789012", strings.TrimSuffix(roleARN, "/i-0abc")), false},
	} {
		aws, s := newSTS(t)
		aws.answer = func() *http.Response {
			resp := respond(c.status, c.kind, c.text)
			resp.Header.Set("Location", "https://sts.evil.example/")
			return resp
		}
		id, err := s.Identify(t.Context(), proof(t), nonce, publicURL)
		if err == nil || id != (Identity{}) || errors.Is(err, ErrUnavailable) != c.unavailable {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
		if len(aws.requests) != 1 {
			t.Errorf("%s: %d requests", name, len(aws.requests))
		}
	}
	aws, s := newSTS(t)
	aws.answer = func() *http.Response { return respond(200, "application/json; charset=utf-8", good) }
	if _, err := s.Identify(t.Context(), proof(t), nonce, publicURL); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

type broken struct{ err error }

func (b broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, b.err }

type waits struct{}

func (waits) RoundTrip(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

func TestAWSIsAway(t *testing.T) {
	s := New(broken{errors.New("no route, and a secret " + creds.SessionToken)}, func() time.Time { return now })
	if _, err := s.Identify(t.Context(), proof(t), nonce, publicURL); !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), creds.SessionToken) {
		t.Error(err)
	}
	// All turns are taken by requests that are not answered.
	s = New(waits{}, func() time.Time { return now })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	for range atOnce {
		go func() {
			_, err := s.Identify(ctx, proof(t), nonce, publicURL)
			ended <- err
		}()
	}
	for len(s.turns) < atOnce {
		time.Sleep(time.Millisecond)
	}
	short, end := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer end()
	if _, err := s.Identify(short, proof(t), nonce, publicURL); !errors.Is(err, ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	cancel()
	for range atOnce {
		if err := <-ended; !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	}
}
