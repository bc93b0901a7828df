package linux

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/linux/kernel"
)

// Self says which machine this is: by the instance in the state directory, which is drawn at
// the first start, by /etc/machine-id, and by the boot. A copy of the state directory on
// another machine is a clone of the host, and the server says so.
func Self(stateDir string) (api.Self, error) {
	instance, err := instanceOf(stateDir)
	if err != nil {
		return api.Self{}, fmt.Errorf("instance: %w", err)
	}
	boot, err := kernel.BootID()
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
	unlock, err := await(context.Background(), name+".lock") // held for a moment only
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
