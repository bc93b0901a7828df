package server

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"narwharf/cmd/narwharf/server/health"
	"narwharf/cmd/narwharf/server/rooms"
	"narwharf/hooks/dashboard"
	"narwharf/hooks/dashboard/channels"
	"narwharf/hooks/dashboard/fleet"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/limits"
	"narwharf/hooks/dashboard/store"
	"narwharf/hooks/dashboard/telling"
	"narwharf/hooks/reply"
	"narwharf/hooks/series"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
	"narwharf/signing/access/session"
)

// cookies are those of browsers that are logged in.
func (d *DataDir) cookies() session.Cookies { return session.Cookies{Public: d.Config.URL()} }

// page is the page for people.
func (d *DataDir) page(auth *access.Authenticator, issuers *oidc.Issuers) *dashboard.Server {
	secret := func(issuer string) (string, error) {
		for i := range d.Config.Access.OIDC {
			if o := &d.Config.Access.OIDC[i]; o.Name == issuer {
				return o.ClientSecret()
			}
		}
		return "", nil
	}
	health := &health.Of{
		Files: d.cache.Uploads.Files, State: d.alive, Driver: d.channels.Rollouts,
		Keys: func() int { return len(d.cache.Signer.PublicKeys()) },
	}
	past := func(ctx context.Context, group string, res series.Resolution) (*series.Table, error) {
		return series.Read(ctx, d.State, group, res)
	}
	came := func(ctx context.Context) ([]store.Sender, []store.Refusal, error) {
		return d.uploads.Seen(ctx, d.State)
	}
	return dashboard.New(dashboard.Options{
		Access: auth, Sessions: session.New(d.Short, d.Tokens), Cookies: d.cookies(), Log: d.log, Clock: time.Now,
		API: d.channels, Topics: d.channels.Polls(),
		Rooms: append([]*frame.Room{
			fleet.Room(d.channels.Fleet, d.channels.Rollouts, health.Facts),
			channels.Room(channels.Options{Rollouts: d.channels.Rollouts, Hosts: d.channels.Fleet, Past: past}),
		}, rooms.Of(d.cache, came, past, d.tokens(), d.Config)...),
		Banners: []func(r *frame.Request) *frame.Banner{limits.Banner(d.channels.Rollouts.Frozen), telling.Banner},
		Logins:  &session.Logins{Issuers: issuers, Secret: secret, Public: d.Config.URL()},
	})
}

// Web sends what is for people to page, the API to channels and everything else to the cache. A proxy may
// have left the path of public_url on the request or taken it off.
func Web(publicURL *url.URL, page, channels, cache http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path := req.URL.Path
		if publicURL != nil && publicURL.Path != "" {
			if rest, ok := strings.CutPrefix(path, publicURL.Path); ok && strings.HasPrefix(rest, "/") {
				path = rest
			}
		}
		to := channels
		switch {
		case strings.HasPrefix(path, "/api/"), strings.HasPrefix(path, reply.FleetLock):
		case path == "/ui" || strings.HasPrefix(path, dashboard.Path):
			to = page
		default:
			cache.ServeHTTP(w, req)
			return
		}
		req.URL.Path, req.URL.RawPath = path, ""
		to.ServeHTTP(w, req)
	})
}
