package access

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"narwharf/narinfo/clip"
	"narwharf/signing/access/scope"
)

// Patience is how long after a use of a join token the same host may repeat it
// without another use: its answer may have been lost.
const Patience = 10 * time.Minute

// Each host that joins, and each repetition, leaves a token behind.
const (
	maxUses    = 1000
	maxRepeats = 100
)

// Use is one host that a join token made a token for.
type Use struct {
	Instance string    `json:"instance"` // of the machine; what a repetition is known by
	Host     string    `json:"host"`
	Token    string    `json:"token"` // id of the token that was made
	At       time.Time `json:"at"`
	Repeats  int       `json:"repeats,omitempty"`
}

// JoinError is why a join token was not redeemed. Its text says what to do.
type JoinError struct{ text string }

func (e *JoinError) Error() string { return e.text }

var hostGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,126}$`)

// NewJoin makes a join token: all it may do is to be redeemed, uses times, for the
// token of a host of channel, and if host is not "" of that host alone.
func NewJoin(name, channel, host string, uses int, now, expires time.Time) (secret string, t Token, err error) {
	return create(Token{Name: name, Scopes: scope.Set{{Kind: scope.Join, Glob: channel}}, Host: host, Uses: uses, Created: now, Expires: expires})
}

// NewHost makes the token that a host gets for a join token: to read, and to
// follow one channel, as itself alone, without an end. Its name is host-<host>,
// made unlike others if that is too long for a name.
func NewHost(host, channel string, now time.Time) (secret string, t Token, err error) {
	name := "host-" + host
	if len(name) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = fmt.Sprintf("%s-%x", name[:maxName-17], sum[:8])
	}
	return New(name, host, scope.Set{{Kind: scope.Pull}, {Kind: scope.Follow, Glob: channel}}, now, time.Time{})
}

// checkJoin holds what a token says of hosts together.
func (t Token) checkJoin() error {
	join := slices.ContainsFunc(t.Scopes, func(s scope.Scope) bool { return s.Kind == scope.Join })
	switch {
	case t.Host != "" && !hostGrammar.MatchString(t.Host):
		return fmt.Errorf("%s is not the name of a host", scope.Quote(t.Host))
	case !join && (t.Uses != 0 || len(t.Used) > 0):
		return fmt.Errorf("it is no join token, and yet it has %d uses", t.Uses)
	case !join && t.Joined != "" && !validID(t.Joined):
		return fmt.Errorf("it was made by a join token %s, which is no id", scope.Quote(t.Joined))
	case !join:
		return nil
	case t.Uses == 0:
		return errors.New("the scope join is for join tokens: narwharf token new --join CHANNEL makes them")
	case len(t.Scopes) > 1 || strings.Contains(t.Scopes[0].Glob, "*"):
		return fmt.Errorf("a join token is for one channel and nothing else, not for %s", t.Scopes)
	case t.Uses < 0 || t.Uses > maxUses:
		return fmt.Errorf("%d uses are not between 1 and %d", t.Uses, maxUses)
	case t.Host != "" && t.Uses > 1:
		return fmt.Errorf("a join token for the one host %s has one use, not %d", scope.Quote(t.Host), t.Uses)
	case t.Expires.IsZero():
		return errors.New("a join token has to expire")
	case len(t.Used) > t.Uses:
		return fmt.Errorf("it was used %d times, and it has %d uses", len(t.Used), t.Uses)
	case t.Joined != "":
		return errors.New("a join token is not made by another")
	}
	return nil
}

// Redeem exchanges a join token for a host's token, fresh, as NewHost made it. A use of
// the join token is spent, unless the same instance and host spent one less than
// Patience before fresh.Created and so did not get the answer. All active tokens that
// joins made for the host before are revoked. ErrNotFound, ErrExists, a *JoinError.
func (c Change) Redeem(joinID, instance string, fresh Token) error {
	join, ok, err := read(c, joinID)
	if err == nil && !ok {
		err = fmt.Errorf("look up token %s: %w", scope.Quote(joinID), ErrNotFound)
	}
	if err == nil {
		join, err = use(join, instance, fresh)
	}
	if err == nil {
		err = cmp.Or(c.RevokeJoined(fresh.Host, "", fresh.Created), c.put(join))
	}
	if err != nil {
		return err
	}
	fresh.Joined = join.ID
	return c.Add(fresh)
}

// Repeats tells whether a host repeats its use of a join token, since its answer may
// have been lost.
func (c Change) Repeats(joinID, instance, host string, now time.Time) (bool, error) {
	join, _, err := read(c, joinID)
	return join.used(instance, host, now) >= 0, err
}

// used is the index of a use that may be repeated, or -1.
func (t Token) used(instance, host string, now time.Time) int {
	return slices.IndexFunc(t.Used, func(u Use) bool {
		return u.Instance == instance && u.Host == host && now.Sub(u.At) < Patience
	})
}

// use spends a use of a join token, or says why it cannot be.
func use(join Token, instance string, fresh Token) (Token, error) {
	refuse := func(format string, args ...any) (Token, error) {
		return Token{}, &JoinError{fmt.Sprintf("the token %q ", clip.ASCII(join.Name, maxName)) + fmt.Sprintf(format, args...)}
	}
	again := "make another with narwharf token new --join"
	if join.Uses > 0 {
		again += " " + join.Scopes[0].Glob
	}
	switch {
	case join.Uses == 0:
		return refuse("is no join token: %s CHANNEL", again)
	case !join.Revoked.IsZero():
		return refuse("was revoked on %s: %s", stamp(join.Revoked), again)
	case join.Expired(fresh.Created):
		return refuse("expired on %s: %s", stamp(join.Expires), again)
	case join.Host != "" && join.Host != fresh.Host:
		return refuse("is for the host %s and this is %s: set host in the agent's configuration, or %s --host %[2]s", join.Host, clip.ASCII(fresh.Host, 127), again)
	}
	at := join.used(instance, fresh.Host, fresh.Created)
	switch {
	case at >= 0 && join.Used[at].Repeats >= maxRepeats:
		return refuse("was used by %s %d times: %s", fresh.Host, maxRepeats, again)
	case at >= 0:
		join.Used[at].Repeats++
		join.Used[at].Token = fresh.ID // the time stays: a repetition gives no more time
	case len(join.Used) == join.Uses && join.Uses == 1:
		u := join.Used[0]
		return refuse("was used by %s on %s: %s", u.Host, stamp(u.At), again)
	case len(join.Used) == join.Uses:
		return refuse("was used by %d hosts, as often as it may be: %s", join.Uses, again)
	default:
		join.Used = append(join.Used, Use{Instance: instance, Host: fresh.Host, Token: fresh.ID, At: wholeSecond(fresh.Created)})
	}
	return join, nil
}
