package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"narwharf/signing/access/awsiam"
)

// metadata is the service by which a cloud tells a machine who it is.
type metadata struct{ client *http.Client }

const (
	// service is the address of all of them, of this link alone.
	service     = "http://169.254.169.254"
	maxMetadata = 64 << 10
)

func newMetadata(transport http.RoundTripper) metadata {
	if transport == nil {
		transport = &http.Transport{Proxy: nil, DisableKeepAlives: true, DialContext: linkLocal}
	}
	return metadata{&http.Client{Transport: transport, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// linkLocal dials nobody beyond this link.
func linkLocal(ctx context.Context, network, address string) (net.Conn, error) {
	if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().IsLinkLocalUnicast() {
		return nil, fmt.Errorf("%s is not of this link", address)
	}
	d := net.Dialer{Timeout: 3 * time.Second}
	return d.DialContext(ctx, network, address)
}

// ask makes one request.
func (m metadata) ask(ctx context.Context, method, path string, header map[string]string) (string, http.Header, error) {
	what, _, _ := strings.Cut(path, "?")
	req, err := http.NewRequestWithContext(ctx, method, service+path, nil)
	if err != nil {
		return "", nil, err
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return "", nil, fmt.Errorf("the metadata service of this machine was not reached: is it in this cloud? (%w)", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata+1))
	switch {
	case resp.StatusCode != http.StatusOK:
		return "", nil, fmt.Errorf("the metadata service of this machine answers %s with %s", what, resp.Status)
	case err != nil:
		return "", nil, fmt.Errorf("the metadata service of this machine, %s: %w", what, err)
	case len(text) > maxMetadata:
		return "", nil, fmt.Errorf("the metadata service of this machine answers %s with more than %d bytes", what, maxMetadata)
	}
	return strings.TrimSpace(string(text)), resp.Header, nil
}

// gcp is the identity token of a machine of Google's, with what it says of the instance.
func (m metadata) gcp(ctx context.Context, audience string) (string, error) {
	jwt, header, err := m.ask(ctx, "GET", "/computeMetadata/v1/instance/service-accounts/default/identity?"+url.Values{"audience": {audience}, "format": {"full"}}.Encode(),
		map[string]string{"Metadata-Flavor": "Google"})
	if err == nil && header.Get("Metadata-Flavor") != "Google" {
		err = errors.New("what answers at " + service + " is not Google's metadata service")
	}
	return jwt, err
}

// azure is the token of a machine's system-assigned identity.
func (m metadata) azure(ctx context.Context, audience string) (string, error) {
	text, _, err := m.ask(ctx, "GET", "/metadata/identity/oauth2/token?"+url.Values{"api-version": {"2018-02-01"}, "resource": {audience}}.Encode(),
		map[string]string{"Metadata": "true"})
	if err != nil {
		return "", err
	}
	var a struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil || a.Token == "" {
		return "", errors.New("Azure's metadata service gave no access_token")
	}
	return a.Token, nil
}

var roleName = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{1,64}$`)

// role is the credentials of a machine's role in AWS, and the region: IMDSv2, which asks for a
// token first.
func (m metadata) role(ctx context.Context, region string) (c awsiam.Credentials, _ string, err error) {
	token, _, err := m.ask(ctx, "PUT", "/latest/api/token", map[string]string{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
	if err != nil {
		return c, "", err
	}
	with := map[string]string{"X-aws-ec2-metadata-token": token}
	const roles = "/latest/meta-data/iam/security-credentials/"
	name, _, err := m.ask(ctx, "GET", roles, with)
	if err != nil {
		return c, "", fmt.Errorf("%w: has this instance a role (an instance profile)?", err)
	}
	if name, _, _ = strings.Cut(name, "\n"); !roleName.MatchString(name) {
		return c, "", errors.New("the metadata service of this machine names no role: give the instance one (an instance profile)")
	}
	text, _, err := m.ask(ctx, "GET", roles+name, with)
	if err != nil {
		return c, "", err
	}
	var a struct{ Code, AccessKeyID, SecretAccessKey, Token string }
	if err := json.Unmarshal([]byte(text), &a); err != nil || a.Code != "Success" {
		return c, "", fmt.Errorf("the metadata service of this machine has no credentials of the role %s now (%.32q)", name, a.Code)
	}
	if region == "" {
		if region, _, err = m.ask(ctx, "GET", "/latest/meta-data/placement/region", with); err != nil {
			return c, "", err
		}
	}
	return awsiam.Credentials{AccessKeyID: a.AccessKeyID, SecretAccessKey: a.SecretAccessKey, SessionToken: a.Token}, region, nil
}
