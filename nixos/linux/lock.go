package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked is that another process has a lock.
var errLocked = errors.New("it is locked")

// try takes a lock, which ends with the process at the latest.
func try(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return func() { f.Close() }, nil
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EINTR):
		err = errLocked
	}
	f.Close()
	return nil, fmt.Errorf("lock %s: %w", name, err)
}

// await is try that waits, for long perhaps, until ctx is over.
func await(ctx context.Context, name string) (unlock func(), err error) {
	for {
		if unlock, err = try(name); !errors.Is(err, errLocked) || sleep(ctx, 50*time.Millisecond) != nil {
			return unlock, err
		}
	}
}

// ErrAnotherAgent is that an agent runs with the same state directory.
var ErrAnotherAgent = errors.New("another narwharf agent runs on this state_dir")

// lockAgent keeps other agents off the state directory until it is released.
func lockAgent(stateDir string) (release func(), err error) {
	release, err = try(stateDir + "/lock")
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("%w: %s", ErrAnotherAgent, stateDir)
	}
	return release, err
}

// awaitAgent is lockAgent that waits for an agent that runs. The agent of a first boot, or
// of cron, may be switching to the very system that starts this one, and a unit that fails
// then would count against that system.
func awaitAgent(ctx context.Context, stateDir string, log *slog.Logger) (release func(), err error) {
	if release, err = lockAgent(stateDir); !errors.Is(err, ErrAnotherAgent) {
		return release, err
	}
	log.Info("waiting until another agent has ended", "reason", err)
	release, waited := await(ctx, stateDir+"/lock")
	if errors.Is(waited, errLocked) {
		return nil, err
	}
	return release, waited
}
