// Package mirror is the section [mirror] of the server's configuration: what is kept here of a centre, another
// Narwharf that is an upstream.
package mirror

import (
	"errors"
	"fmt"
	"slices"

	"narwharf/signing"
)

// Config is the section.
type Config struct {
	Channels []string `toml:"channels"`
	Upstream string   `toml:"upstream"` // its URL; "": the first
}

// Check returns which of the upstreams, given by their URLs, has the channels; -1 if none are followed.
func (c *Config) Check(upstreams []string) (at int, err error) {
	if len(c.Channels) == 0 {
		if c.Upstream != "" {
			return -1, errors.New("mirror.upstream: mirror.channels is empty: say which channels are kept here")
		}
		return -1, nil
	}
	for i, name := range c.Channels {
		if err := signing.CheckChannel(name); err != nil {
			return -1, fmt.Errorf("mirror.channels: %w", err)
		}
		if slices.Contains(c.Channels[:i], name) {
			return -1, fmt.Errorf("mirror.channels: %s is there twice", name)
		}
	}
	switch at = slices.Index(upstreams, c.Upstream); {
	case at >= 0:
		return at, nil
	case c.Upstream != "":
		return -1, fmt.Errorf("mirror.upstream: no [[upstream]] has the url %s", c.Upstream)
	case len(upstreams) == 0:
		return -1, errors.New("mirror.channels: there is no [[upstream]] that could have them")
	}
	return 0, nil
}
