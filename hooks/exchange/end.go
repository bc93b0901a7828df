package exchange

import (
	"context"
	"errors"
	"fmt"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
	"narwharf/signing/access/shortlived"
)

// End ends the short-lived token of somebody who has done with it. shown is that it was shown on
// purpose, in a header.
func (x *Exchanger) End(ctx context.Context, who *access.Principal, shown bool) error {
	switch {
	case who.Credential != access.Valid || !shown:
		return access.Refuse(401, "the token to end is the one that the request has, as Authorization: Bearer, and there is none that is good")
	case !access.IsShort(who.TokenID):
		return api.Errorf(api.Forbidden, "this credential does not end by its bearer's wish: a token of narwharf token new is revoked where it was made, by narwharf token revoke, and a JWT ends by itself")
	}
	return x.set.Update(ctx, []string{shortlived.Lock}, func(tx *mirror.Tx) error {
		t, err := x.short.In(tx).Revoke(who.TokenID)
		if errors.Is(err, shortlived.ErrNotFound) {
			return nil // another request has ended it
		}
		if err != nil {
			return err
		}
		audit.Note(tx, api.Event{
			Kind: "token.revoked", By: t.Grant.Name(), Host: t.Grant.Host, Data: map[string]string{"token": t.ID, "name": t.Grant.Name()},
			Text: fmt.Sprintf("the token %s of %s, by the rule %s, was ended by its bearer", t.ID, clip.Line(t.Grant.Subject, 128), t.Grant.Name()),
		})
		return nil
	})
}
