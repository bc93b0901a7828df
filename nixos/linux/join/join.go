// Package join gets a host its token: once, for a join token, or again and again by its identity; and
// says which machine this is.
package join

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/hooks/api/trust"
	"narwharf/narinfo/clip"
	"narwharf/nixos/config"
	"narwharf/nixos/linux/sys"
	"narwharf/nixos/remote"
)

// Self says which machine this is: by the instance in the state directory, which is drawn at
// the first start, by /etc/machine-id, and by the boot. A copy of the state directory on
// another machine is a clone of the host, and the server says so.
func Self(stateDir string) (api.Self, error) {
	instance, err := instanceOf(stateDir)
	if err != nil {
		return api.Self{}, fmt.Errorf("instance: %w", err)
	}
	boot, err := sys.BootID()
	if err != nil {
		return api.Self{}, err
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return api.Self{}, err
	}
	return api.Self{Instance: instance, Machine: api.MachineID(machine), BootID: boot}, nil
}

// instanceOf reads the instance, and draws it if there is none. Of two agents
// that start at once both have the same.
func instanceOf(stateDir string) (string, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return "", err
	}
	name := filepath.Join(stateDir, "instance")
	unlock, err := sys.AwaitLock(context.Background(), name+".lock") // held for a moment only
	if err != nil {
		return "", err
	}
	defer unlock()
	text, err := os.ReadFile(name)
	instance := strings.TrimSpace(string(text))
	switch {
	case err == nil && api.ValidInstance(instance):
		return instance, nil
	case err == nil && instance != "": // an empty one is of a power cut, before it was used
		return "", fmt.Errorf("%s holds %q and not 32 hex digits: if this machine is to be a new one to the server, remove the file", name, clip.Text(instance, 64))
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return "", err
	}
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	instance = hex.EncodeToString(random)
	return instance, durable.WriteFile(name, []byte(instance+"\n"), 0o600)
}

// NewClient makes the client of an agent's configuration, which tells the server which
// machine this is, and returns the configuration with the name that the host has. A host that has a join token and no token of its own yet joins first: it
// keeps trying until ctx is over, unless the server refuses it. It does not join where its
// token would be gone after a boot and the rest of its state would not.
func NewClient(ctx context.Context, c *config.Config, version string, log *slog.Logger) (*api.Client, *config.Config, error) {
	return (&joiner{Config: c, log: log, inMemory: sys.InMemory}).client(ctx, version)
}

// A joiner gets a host its token.
type joiner struct {
	*config.Config
	log      *slog.Logger
	inMemory func(dir string) bool
}

func (c *joiner) client(ctx context.Context, version string) (*api.Client, *config.Config, error) {
	self, err := Self(c.StateDir)
	if err != nil {
		return nil, nil, err
	}
	if c.forgets(c.StateDir) {
		c.log.Warn("state_dir lies in memory: after a boot this is another machine to the server, and one that knows no release; it should be on a disk",
			"state_dir", c.StateDir)
	}
	o := api.ClientOptions{Servers: c.Servers, Trust: trust.Files{CA: c.CAFile, Cert: c.CertFile, Key: c.KeyFile}, UserAgent: "narwharf-agent/" + version, Self: self}
	if c.Identity.Kind != "" {
		return renewed(ctx, c.Config, o, nil, c.log)
	}
	if o.TokenFile, err = c.join(ctx, o); err != nil {
		return nil, nil, err
	}
	client, err := api.NewClient(o)
	return client, c.Config, err
}

// join returns the file with the host's own token, after getting it if need be;
// "" if the host has none and needs none.
func (c *joiner) join(ctx context.Context, o api.ClientOptions) (string, error) {
	file := c.TokenFile
	if file == "" {
		file = filepath.Join(c.StateDir, "token")
	}
	lock := filepath.Join(c.StateDir, "join.lock") // two agents must not join twice
	unlock, err := sys.AwaitLock(ctx, lock)
	if errors.Is(err, sys.ErrLocked) {
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
