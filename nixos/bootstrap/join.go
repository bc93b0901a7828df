package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/proof"
	"narwharf/hooks/api/trust"
	"narwharf/nixos/identity"
	"narwharf/signing/access"
)

// CheckJoinToken refuses any other than a join token: whoever may read a machine's
// user-data would get its rights. Join tokens show that they are; those that an older
// narwharf made do not, and their server tells by what it says to a request that is not
// theirs to make. caFile may be "".
func (s *Script) CheckJoinToken(ctx context.Context, caFile string) error {
	if s.Identity.Kind != "" {
		return nil // there is none
	}
	if _, err := access.ParseSecret(s.JoinToken); err != nil {
		return fmt.Errorf("the token %w", err)
	}
	if access.IsJoin(s.JoinToken) {
		return nil
	}
	another := "make one with narwharf token new --join " + s.Channel
	client, err := api.NewClient(api.ClientOptions{Servers: []string{s.Server}, Token: s.JoinToken, Trust: trust.Files{CA: caFile}, UserAgent: "narwharf/" + s.Version})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	_, err = client.Hosts(ctx, s.Channel)
	var refused *api.Error
	switch {
	case err == nil:
	case !errors.As(err, &refused):
		return fmt.Errorf("it does not show to be a join token, and the server cannot be asked (%w): %s", err, another)
	case refused.Kind == api.Forbidden && strings.Contains(refused.Message, " has join:"):
		return nil
	case refused.Kind != api.Forbidden:
		return fmt.Errorf("%w: %s", err, another)
	}
	return fmt.Errorf("that is no join token, and has no business on a new machine: %s", another)
}

// SetIdentity says how the machine proves who it is: ssh, aws, gcp or azure; "" by a join token.
func (s *Script) SetIdentity(how string) error {
	switch how {
	case "", proof.SSH, proof.AWS:
		s.Identity.Kind = how
	case identity.FromGCP, identity.FromAzure:
		s.Identity.Kind, s.Identity.From = proof.OIDC, how
	default:
		return fmt.Errorf("%q is none of ssh, aws, gcp and azure", how)
	}
	return s.Identity.Check()
}
