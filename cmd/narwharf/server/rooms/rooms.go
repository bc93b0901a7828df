// Package rooms puts the views of the page together that are not about hosts.
package rooms

import (
	"context"

	"narwharf/cache/stored"
	"narwharf/cmd/narwharf/server/contents"
	"narwharf/cmd/narwharf/server/credentials"
	"narwharf/cmd/narwharf/server/token"
	"narwharf/hooks/dashboard/difference"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/joining"
	"narwharf/hooks/dashboard/limits"
	"narwharf/hooks/dashboard/people"
	"narwharf/hooks/dashboard/store"
	"narwharf/hooks/dashboard/telling"
	"narwharf/hooks/series"
	"narwharf/hooks/serverconfig"
)

// Of are the rooms of a server, in the order of the navigation.
func Of(cache *stored.Cache, came func(context.Context) ([]store.Sender, []store.Refusal, error), past func(context.Context, string, series.Resolution) (*series.Table, error), tokens token.Store, cfg *serverconfig.Config) []*frame.Room {
	return []*frame.Room{
		difference.Room(), limits.Room(), telling.Room(), joining.Room(),
		store.Room(store.Options{
			Cache: contents.Contents{Cache: cache}, Uploads: came, Past: past,
		}),
		people.Room(credentials.Credentials{Store: tokens, Config: cfg}),
	}
}
