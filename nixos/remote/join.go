package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"narwharf/hooks/api"
)

// ErrNotJoined is that a host tried to join until its time was over.
var ErrNotJoined = errors.New("the time is over and no server has answered")

// Join exchanges the join token that the client has for the host's own. It asks until
// there is an answer: the network of a first boot may take its time, and what was asked
// twice is answered as if it had been once. A server that refuses has answered.
func Join(ctx context.Context, client *api.Client, host, channel string, log *slog.Logger) (*api.Joined, error) {
	for try := 1; ; try++ {
		joined, err := client.Join(ctx, host, channel)
		var refused *api.Error
		if err == nil || errors.As(err, &refused) && refused.Status < 500 {
			return joined, err
		}
		if try == 1 || try%20 == 0 {
			log.Warn("cannot join yet", "tries", try, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrNotJoined, err)
		case <-time.After(min(time.Second<<min(try-1, 4), 15*time.Second)):
		}
	}
}
