package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/hooks/api/proof"
	"narwharf/nixos/config"
	"narwharf/nixos/identity"
	"narwharf/nixos/linux/sys"
	"narwharf/nixos/remote"
)

// A renewal gets a host its short-lived tokens, by its identity: one when there is none, the next at
// half the time of the last, and one at once when the server does not take the last any more.
type renewal struct {
	config *config.Config
	client *api.Client // without a token
	source *identity.Source
	self   api.Self
	log    *slog.Logger
	now    func() time.Time

	mu    sync.Mutex
	have  *own
	later time.Time // before which no other is asked for, after a failure
}

// own is what state_dir/identity.json has: other agents of this host use the same.
type own struct {
	Host  string    `json:"host"`
	Token string    `json:"token"`
	Renew time.Time `json:"renew"` // when the next is due
}

// pause is how long a server is left alone that gave no other token while there is one.
const pause = 30 * time.Second

// renewed makes the client of a host with an identity, after getting it a token: it keeps trying
// until ctx is over. A server that refuses may be told otherwise meanwhile, as by narwharf host
// approve. The transport is for the machine's metadata service; nil is that of the machine.
func renewed(ctx context.Context, c *config.Config, o api.ClientOptions, metadata http.RoundTripper, log *slog.Logger) (*api.Client, *config.Config, error) {
	client, err := api.NewClient(o)
	if err != nil {
		return nil, nil, err
	}
	r := &renewal{config: c, client: client, source: identity.New(c.Identity, metadata), self: o.Self, log: log, now: time.Now}
	if err := remote.Await(ctx, c.Host, log, func() error {
		_, err := r.token(ctx, "")
		return err
	}); err != nil {
		return nil, nil, fmt.Errorf("join %s as %s: %w", c.Channel, c.Host, err)
	}
	o.Renew = r.token
	client, err = api.NewClient(o)
	return client, c.As(r.have.Host), err
}

func (r *renewal) file() string { return filepath.Join(r.config.StateDir, "identity.json") }

// read is what the file has, nil if there is nothing of use.
func (r *renewal) read() *own {
	text, err := os.ReadFile(r.file())
	if err != nil {
		return nil
	}
	o := new(own)
	if json.Unmarshal(text, o) != nil || o.Token == "" || o.Host == "" {
		return nil
	}
	if asks := r.config.Asks(); asks != "" && asks != o.Host {
		return nil // it has been given another name
	}
	return o
}

// token is a credential.Renewal.
func (r *renewal) token(ctx context.Context, refused string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	good := func(o *own) bool { return o != nil && o.Token != refused && r.now().Before(o.Renew) }
	if good(r.have) {
		return r.have.Token, nil
	}
	usable := r.have != nil && r.have.Token != refused
	if usable && r.now().Before(r.later) {
		return r.have.Token, nil
	}
	next, err := r.next(ctx, good)
	switch {
	case err == nil:
		r.have = next
	case !usable:
		return "", err
	default: // it may do for as long again
		r.later = r.now().Add(pause)
		r.log.Warn("the token of this host could not be renewed yet", "error", err)
	}
	return r.have.Token, nil
}

// next is what another agent of this host got, or joins.
func (r *renewal) next(ctx context.Context, good func(*own) bool) (*own, error) {
	unlock, err := sys.AwaitLock(ctx, filepath.Join(r.config.StateDir, "join.lock"))
	if errors.Is(err, sys.ErrLocked) {
		return nil, fmt.Errorf("another agent joins: %w", remote.ErrNotJoined)
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	is := r.read()
	if good(is) {
		return is, nil
	}
	asks := r.config.Asks()
	if asks == "" && is != nil {
		asks = is.Host
	}
	joined, err := r.join(ctx, asks)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Kind == api.Forbidden && asks != r.config.Asks() {
		joined, err = r.join(ctx, "") // it may not have the name that it had
	}
	if err != nil {
		return nil, err
	}
	half := time.Duration(joined.ExpiresIn) * time.Second / 2
	half -= time.Duration(rand.Int64N(int64(half)/5 + 1)) // not all hosts of a fleet at once
	is = &own{Host: joined.Host, Token: joined.Token, Renew: r.now().Add(half).UTC()}
	text, err := json.Marshal(is)
	if err == nil {
		err = durable.WriteFile(r.file(), append(text, '\n'), 0o600)
	}
	if err != nil { // the next agent gets another
		r.log.Warn("the token of this host cannot be kept", "error", err)
	}
	r.log.Info("joined", "channel", r.config.Channel, "host", is.Host, "identity", r.config.Identity.Kind, "ends", r.now().Add(2*half).UTC().Format(time.DateTime))
	return is, nil
}

// join proves once who this host is.
func (r *renewal) join(ctx context.Context, host string) (*api.Joined, error) {
	own, err := api.ParseURL(r.config.Servers[0])
	if r.config.Identity.ServerURL != "" {
		own, err = api.ParseURL(r.config.Identity.ServerURL)
	}
	if err != nil {
		return nil, err
	}
	return r.client.JoinBy(ctx, host, r.config.Channel, r.source.NeedsNonce(), func(nonce, url string) (*proof.Proof, error) {
		if url != "" && url != own.String() {
			return nil, fmt.Errorf("the server says that it is %s, and this host knows it as %s: if both are one, set server_url = %q in [identity]", url, own, url)
		}
		return r.source.Proof(ctx, nonce, own.String(), host, r.self.Instance)
	})
}
