// Package retention answers what is at /api/v1/pins, gc, du, why and paths: what the cache keeps.
package retention

import (
	"narwharf/hooks/channel"
	"narwharf/hooks/retain"
)

// Handlers answer them.
type Handlers struct {
	Retain    *retain.Retainer
	Collector retain.Collector
	Channels  *channel.Channels
}
