package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/nixos/config"
	"narwharf/nixos/linux/kernel"
	"narwharf/nixos/remote"
)

// NewClient makes the client of an agent's configuration, which tells the server which
// machine this is. A host that has a join token and no token of its own yet joins first: it
// keeps trying until ctx is over, unless the server refuses it. It does not join where its
// token would be gone after a boot and the rest of its state would not.
func NewClient(ctx context.Context, c *config.Config, version string, log *slog.Logger) (*api.Client, error) {
	return (&joiner{Config: c, log: log, inMemory: kernel.InMemory}).client(ctx, version)
}

// A joiner gets a host its token.
type joiner struct {
	*config.Config
	log      *slog.Logger
	inMemory func(dir string) bool
}

func (c *joiner) client(ctx context.Context, version string) (*api.Client, error) {
	self, err := Self(c.StateDir)
	if err != nil {
		return nil, err
	}
	if c.forgets(c.StateDir) {
		c.log.Warn("state_dir lies in memory: after a boot this is another machine to the server, and one that knows no release; it should be on a disk",
			"state_dir", c.StateDir)
	}
	o := api.ClientOptions{Servers: c.Servers, CAFile: c.CAFile, UserAgent: "narwharf-agent/" + version, Self: self}
	if o.TokenFile, err = c.join(ctx, o); err != nil {
		return nil, err
	}
	return api.NewClient(o)
}

// join returns the file with the host's own token, after getting it if need be;
// "" if the host has none and needs none.
func (c *joiner) join(ctx context.Context, o api.ClientOptions) (string, error) {
	file := c.TokenFile
	if file == "" {
		file = filepath.Join(c.StateDir, "token")
	}
	lock := filepath.Join(c.StateDir, "join.lock") // two agents must not join twice
	unlock, err := await(ctx, lock)
	if errors.Is(err, errLocked) {
		return "", fmt.Errorf("another agent has %s: %w", lock, remote.ErrNotJoined)
	}
	if err != nil {
		return "", err
	}
	defer unlock()
	st, err := os.Stat(file)
	switch {
	case err == nil && (st.Size() > 0 || !st.Mode().IsRegular()): // a pipe has no size
		return file, nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("token: %w", err)
	case c.JoinTokenFile == "":
		return c.TokenFile, nil // missing, which the client says, or none is configured
	}
	// A token is got once. With all of its state forgotten a host joins anew at
	// each boot, which a token with enough uses may allow.
	if c.forgets(file) && !c.forgets(c.StateDir) {
		return "", fmt.Errorf("join %s as %s: token_file %s lies in memory, so that a boot would forget the token, and the join token would be spent: "+
			"leave token_file out, or name one that outlives a boot", c.Channel, c.Host, file)
	}
	o.TokenFile = c.JoinTokenFile
	client, err := api.NewClient(o)
	if err != nil {
		return "", fmt.Errorf("there is no token in %s, so this host has to join: %w", file, err)
	}
	joined, err := remote.Join(ctx, client, c.Host, c.Channel, c.log)
	if err != nil {
		return "", fmt.Errorf("join %s as %s: %w", c.Channel, c.Host, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	if err := durable.WriteFile(file, []byte(joined.Token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the token of this host: %w", err)
	}
	c.log.Info("joined", "channel", c.Channel, "host", c.Host, "token", file)
	// It is spent. Where it lies may be read-only.
	if err := os.Remove(c.JoinTokenFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Warn("the join token is spent and stays where it is", "error", err)
	}
	return file, nil
}

// forgets tells whether a boot ends what is written to a file or folder, which
// need not be there yet.
func (c *joiner) forgets(name string) bool {
	for {
		if st, err := os.Stat(name); err == nil && st.IsDir() {
			return c.inMemory(name)
		}
		up := filepath.Dir(name)
		if up == name {
			return false
		}
		name = up
	}
}
