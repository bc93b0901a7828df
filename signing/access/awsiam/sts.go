package awsiam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"narwharf/signing/ijson"
)

// Identity is who STS says that a machine is.
type Identity struct {
	Account string // twelve digits
	Role    string // its name, without a path
	Session string // the choice of who assumed the role
	ARN     string
}

// ErrUnavailable is that STS gave no answer that decides anything: ask again later.
var ErrUnavailable = errors.New("the Security Token Service of AWS does not answer now: try again soon")

const (
	maxAnswer = 64 << 10
	timeout   = 10 * time.Second
	// atOnce is how many requests may be under way: whoever has a nonce can cause one.
	atOnce = 16
)

// STS asks AWS.
type STS struct {
	client *http.Client
	clock  func() time.Time
	turns  chan struct{}
}

// New makes one. A nil transport is that of net/http, with the proxy of the environment.
func New(transport http.RoundTripper, clock func() time.Time) *STS {
	if transport == nil {
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableCompression: true,
			TLSHandshakeTimeout: timeout, ResponseHeaderTimeout: timeout, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: maxAnswer,
		}
	}
	return &STS{
		client: &http.Client{Transport: transport, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		clock:  clock, turns: make(chan struct{}, atOnce),
	}
}

// Identify asks who made a proof over a nonce. The error is ErrUnavailable, or says what is
// wrong with the proof, in words for who sent it, and nothing that is secret.
func (s *STS) Identify(ctx context.Context, p Proof, nonce, publicURL string) (Identity, error) {
	if err := p.check(s.clock()); err != nil {
		return Identity{}, err
	}
	host, partition, _ := endpoint(p.Region)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return Identity{}, ErrUnavailable
	}
	req, err := request(ctx, &p, host, nonce, publicURL)
	if err != nil {
		return Identity{}, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return Identity{}, fmt.Errorf("%w (%s)", ErrUnavailable, host)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return Identity{}, fmt.Errorf("%w (%s answered %d)", ErrUnavailable, host, resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return Identity{}, fmt.Errorf("%s does not take the signature (status %d): is it over this nonce, with the server's public_url, by credentials that are not over?", host, resp.StatusCode)
	case err != nil:
		return Identity{}, fmt.Errorf("%w (%s broke off)", ErrUnavailable, host)
	case len(text) > maxAnswer:
		return Identity{}, fmt.Errorf("%s answered with more than %d bytes", host, maxAnswer)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return Identity{}, fmt.Errorf("%s answered with what is not JSON", host)
	}
	id, err := parse(text, partition)
	if err != nil {
		return Identity{}, fmt.Errorf("%s: %w", host, err)
	}
	return id, nil
}

// request is all that is sent, whatever a machine says.
func request(ctx context.Context, p *Proof, host, nonce, publicURL string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	headers := p.headers(host, nonce, publicURL)
	for _, h := range headers {
		if h.name != "host" { // which comes of the URL
			req.Header.Set(h.name, h.value)
		}
	}
	req.Header.Set("Authorization", p.authorization(headers))
	req.Header.Set("User-Agent", "narwharf")
	return req, nil
}

// parse reads an answer: exactly the members that GetCallerIdentity of version 2011-06-15 has, each
// once and as it is spelt.
func parse(text []byte, partition string) (Identity, error) {
	none := func(why string) (Identity, error) { return Identity{}, errors.New("the answer is " + why) }
	whole, err := ijson.Parse(text)
	top := exactly(whole, "GetCallerIdentityResponse")
	response := exactly(top.Sub("GetCallerIdentityResponse"), "GetCallerIdentityResult", "ResponseMetadata")
	result := exactly(response.Sub("GetCallerIdentityResult"), "Account", "Arn", "UserId")
	account, arn := result.String("Account"), result.String("Arn")
	if errors.Join(err, top.Err, response.Err, result.Err) != nil {
		return none("not the JSON that GetCallerIdentity has")
	}
	names, assumed := strings.CutPrefix(arn, "arn:"+partition+":sts::"+account+":assumed-role/")
	role, session, _ := strings.Cut(names, "/")
	if !accountGrammar.MatchString(account) || !assumed || !roleGrammar.MatchString(role) || !roleGrammar.MatchString(session) {
		return none("about no assumed role: only roles are taken, such as that of an instance profile, and no users")
	}
	return Identity{Account: account, Role: role, Session: session, ARN: arn}, nil
}

// exactly reads an object that has these members and no others.
func exactly(o ijson.Object, members ...string) *ijson.Fields {
	f := ijson.Read(o, members...)
	if len(o) != len(members) {
		f.Fail("it has %d members and not %d", len(o), len(members))
	}
	return f
}

// CheckRule says what is wrong with an account and a role that a rule names.
func CheckRule(account, role string) error {
	switch {
	case !accountGrammar.MatchString(account):
		return fmt.Errorf("account %.32q is not the twelve digits of an AWS account", account)
	case !roleGrammar.MatchString(role):
		return fmt.Errorf("role %.80q is not the name of an IAM role, without path and patterns", role)
	}
	return nil
}
