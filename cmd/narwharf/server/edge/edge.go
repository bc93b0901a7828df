// Package edge has a server at a site keep what channels of its centre need ([mirror] of the
// configuration). How that is done is package site.
package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"narwharf/cache/index"
	"narwharf/cache/state"
	"narwharf/cache/stored"
	"narwharf/cache/upstream"
	"narwharf/hooks/api"
	"narwharf/hooks/serverconfig"
	"narwharf/hooks/site"
	"narwharf/narinfo"
)

// Options are what a server has for it.
type Options struct {
	Config  *serverconfig.Config
	Cache   *stored.Cache
	State   state.Store
	Alarm   func(ctx context.Context, text string) error
	Version string
	Log     *slog.Logger
}

// Follow makes what follows the channels; nil if the configuration names none.
func Follow(o Options) (*site.Follower, error) {
	from := o.Config.Centre()
	if from == nil {
		return nil, nil
	}
	token, err := from.Token()
	if err != nil {
		return nil, err
	}
	centre, err := api.NewClient(api.ClientOptions{Servers: []string{from.Where().String()}, Token: token, UserAgent: "narwharf/" + o.Version})
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	return site.New(site.Options{
		Centre: centre, Name: from.Where().Redacted(), Channels: o.Config.Mirror.Channels,
		Cache: cache{o.Cache}, State: o.State, Alarm: o.Alarm, Log: o.Log,
	}), nil
}

// cache is a site.Cache.
type cache struct{ *stored.Cache }

// Has tells whether a path is an upload.
func (c cache) Has(_ context.Context, p narinfo.Path) (bool, error) {
	r, err := c.Uploads.Index.Get(p.Hash())
	if errors.Is(err, index.ErrNotFound) {
		return false, nil
	}
	return err == nil && r.Info.Path == p, err
}

// Fetch makes an upload of what the store of this machine or an upstream has.
func (c cache) Fetch(ctx context.Context, p narinfo.Path) error {
	return c.Cache.Fetch(upstream.Patient(ctx), p)
}
