// Package identity makes the proofs by which a host without a token says who it is: a signature by its
// SSH host key, one by the credentials of its role in AWS, or the JWT of its cloud.
//
// Whatever a machine's metadata service says is asked at 169.254.169.254 and nowhere else, without a
// proxy and without following redirects.
package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/proof"
	"narwharf/narinfo/clip"
	"narwharf/signing/access/awsiam"
	"narwharf/signing/access/hostkey"
)

// Config is the section [identity] of agent.toml.
type Config struct {
	Kind   string `toml:"kind"`    // ssh, aws or oidc; "" where a token says who the host is
	SSHKey string `toml:"ssh_key"` // with ssh
	Region string `toml:"region"`  // with aws; that of the machine if empty
	// From is where a JWT comes from, with oidc: gcp, azure, file or command.
	From    string   `toml:"from"`
	File    string   `toml:"file"`
	Command []string `toml:"command"`
	// Audience is for whom a JWT is; the server's URL if empty.
	Audience string `toml:"audience"`
	// ServerURL is public_url of the server's configuration, where server has another name of it.
	ServerURL string `toml:"server_url"`
}

// DefaultKey is the SSH host key that is used if none is named.
const DefaultKey = "/etc/ssh/ssh_host_ed25519_key"

// The places where JWTs come from.
const (
	FromGCP     = "gcp"
	FromAzure   = "azure"
	FromFile    = "file"
	FromCommand = "command"
)

// Check says what is wrong with the section.
func (c *Config) Check() error {
	kinds := []string{"", proof.SSH, proof.AWS, proof.OIDC}
	froms := []string{FromGCP, FromAzure, FromFile, FromCommand}
	oidc := c.Kind == proof.OIDC
	switch {
	case !slices.Contains(kinds, c.Kind):
		return fmt.Errorf("kind: %q is none of %s", c.Kind, strings.Join(kinds[1:], ", "))
	case c.Kind != proof.SSH && c.SSHKey != "":
		return errors.New(`ssh_key is for kind = "ssh"`)
	case c.Kind != proof.AWS && c.Region != "":
		return errors.New(`region is for kind = "aws"`)
	case !oidc && (c.From != "" || c.File != "" || len(c.Command) > 0 || c.Audience != ""):
		return errors.New(`from, file, command and audience are for kind = "oidc"`)
	case c.Kind == "" && c.ServerURL != "":
		return errors.New("kind is missing")
	case oidc && !slices.Contains(froms, c.From):
		return fmt.Errorf("from: %q is none of %s: say where the JWT comes from", c.From, strings.Join(froms, ", "))
	case (c.From == FromFile) != (c.File != ""):
		return errors.New(`file goes with from = "file"`)
	case (c.From == FromCommand) != (len(c.Command) > 0):
		return errors.New(`command goes with from = "command": a program and its arguments, that prints the JWT`)
	case strings.Contains(c.Audience, "management.azure.com") || strings.Contains(c.Audience, "management.core.windows.net"):
		return errors.New("audience: a token for Azure's management would give whoever gets it rights there: name the application that stands for this server")
	case c.From == FromAzure && c.Audience == "":
		return errors.New("audience is missing: with azure it is the URI of the application that stands for this server, as api://narwharf")
	}
	if c.ServerURL != "" {
		if _, err := api.ParseURL(c.ServerURL); err != nil {
			return fmt.Errorf("server_url: %w", err)
		}
	}
	return nil
}

// A Source makes proofs.
type Source struct {
	Config
	metadata metadata
	now      func() time.Time
}

// New makes one. The transport is for the machine's metadata service; nil is that of the machine.
func New(c Config, transport http.RoundTripper) *Source {
	return &Source{Config: c, metadata: newMetadata(transport), now: time.Now}
}

// NeedsNonce tells whether a proof is over a nonce of the server's.
func (s *Source) NeedsNonce() bool { return s.Kind != proof.OIDC }

// Proof proves who this machine is, to the server with a URL.
func (s *Source) Proof(ctx context.Context, nonce, url, host, instance string) (*proof.Proof, error) {
	p, err := s.proof(ctx, nonce, url, host, instance)
	if err != nil {
		return nil, fmt.Errorf("prove by [identity] who this host is: %w", err)
	}
	return p, nil
}

func (s *Source) proof(ctx context.Context, nonce, url, host, instance string) (*proof.Proof, error) {
	switch s.Kind {
	case proof.SSH:
		text, err := os.ReadFile(s.key())
		if err != nil {
			return nil, err
		}
		private, err := hostkey.ParsePrivate(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.key(), err)
		}
		signature, err := hostkey.Sign(private, hostkey.Message(nonce, url, host, instance))
		return &proof.Proof{Type: proof.SSH, Nonce: nonce, Signature: signature}, err
	case proof.AWS:
		c, region, err := s.metadata.role(ctx, s.Region)
		if err != nil {
			return nil, err
		}
		p, err := awsiam.Sign(c, region, nonce, url, s.now())
		return &proof.Proof{Type: proof.AWS, Nonce: nonce, Region: p.Region, Date: p.Date, AccessKeyID: p.AccessKeyID, SessionToken: p.SessionToken, Signature: p.Signature}, err
	}
	jwt, err := s.jwt(ctx, url)
	if err != nil {
		return nil, err
	}
	if strings.Count(jwt, ".") != 2 || strings.ContainsAny(jwt, " \t\r\n") {
		return nil, fmt.Errorf("what %s gives is no JWT (it begins with %q)", s.From, clip.ASCII(jwt, 8))
	}
	return &proof.Proof{Type: proof.OIDC, Token: jwt}, nil
}

func (s *Source) key() string {
	if s.SSHKey == "" {
		return DefaultKey
	}
	return s.SSHKey
}
