package hooks

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"narwharf/hooks/api"
	"narwharf/hooks/desired"
	"narwharf/hooks/reply"
)

// A Route is a row of the API's grammar.
type Route struct {
	Method  string
	Pattern string
	Name    string
}

// endpoint answers one route; what it returns as an error becomes the answer.
type endpoint func(c *call) error

type row struct {
	Route
	serve endpoint
}

func (s *Server) rows() []row {
	return []row{
		{Route{"GET", "/api/v1/channels", "channel-list"}, s.listChannels},
		{Route{"GET", "/api/v1/channels/:channel", "channel"}, ofChannel(mayPull, s.getChannel)},
		{Route{"PUT", "/api/v1/channels/:channel", "promote"}, ofChannel(mayPromote, s.promote)},
		{Route{"DELETE", "/api/v1/channels/:channel", "channel-delete"}, ofChannel(mayPromote, s.deleteChannel)},
		{Route{"GET", "/api/v1/channels/:channel/history", "history"}, ofChannel(mayPull, s.getHistory)},
		{Route{"GET", "/api/v1/channels/:channel/releases/:seq", "release"}, ofChannel(mayPull, s.getRelease)},
		{Route{"GET", "/api/v1/channels/:channel/store-path", "store-path"}, ofChannel(mayPull, s.getStorePath)},
		{Route{"GET", "/api/v1/channels/:channel/policy", "policy"}, ofChannel((*call).operateOr, s.getPolicy)},
		{Route{"PUT", "/api/v1/channels/:channel/policy", "policy-put"}, ofChannel(mayOperate, s.putPolicy)},
		{Route{"GET", "/api/v1/channels/:channel/bootstrap", "bootstrap"}, ofChannel(mayJoin, s.getBootstrap)},
		{Route{"GET", "/api/v1/closures/:digest", "closure"}, s.getClosure},
		{Route{"PUT", "/api/v1/closures/:digest", "closure-put"}, s.putClosure},
		{Route{"GET", "/api/v1/hosts", "host-list"}, s.listHosts},
		{Route{"GET", "/api/v1/hosts/:host", "host"}, ofHost(s.getHost)},
		{Route{"PATCH", "/api/v1/hosts/:host", "host-patch"}, s.operated(s.patchHost)},
		{Route{"DELETE", "/api/v1/hosts/:host", "host-delete"}, ofHost(s.deleteHost)},
		{Route{"POST", "/api/v1/hosts/:host/approve", "host-approve"}, s.operated(s.approveHost)},
		{Route{"POST", "/api/v1/hosts/:host/retry", "host-retry"}, s.directHost(desired.Retry)},
		{Route{"POST", "/api/v1/hosts/:host/revert", "host-revert"}, s.directHost(desired.Revert)},
		{Route{"POST", "/api/v1/hosts/:host/release", "host-release"}, s.releaseHost()},
		{Route{"POST", "/api/v1/join", "join"}, s.join},
		{Route{"GET", "/api/v1/hosts/:host/desired", "desired"}, ofHost(s.getDesired)},
		{Route{"PUT", "/api/v1/hosts/:host/status", "status"}, ofHost(s.putStatus)},
		{Route{"POST", "/api/v1/hosts/:host/log", "host-log-post"}, ofHost(s.postLog)},
		{Route{"GET", "/api/v1/hosts/:host/log", "host-log"}, ofHost(s.getLog)},
		{Route{"GET", "/api/v1/events", "events"}, s.getEvents},
		{Route{"GET", "/api/v1/pins", "pin-list"}, s.listPins},
		{Route{"GET", "/api/v1/pins/:pin", "pin"}, ofPin(s.getPin)},
		{Route{"PUT", "/api/v1/pins/:pin", "pin-put"}, ofPin(s.putPin)},
		{Route{"DELETE", "/api/v1/pins/:pin", "pin-delete"}, ofPin(s.deletePin)},
		{Route{"GET", "/api/v1/gc", "gc"}, s.getCollected},
		{Route{"POST", "/api/v1/gc", "gc-post"}, s.collect},
		{Route{"GET", "/api/v1/why", "why"}, s.getWhy},
		{Route{"GET", "/api/v1/du", "du"}, s.getUsage},
		{Route{"DELETE", "/api/v1/paths/:path", "path-delete"}, s.deletePath},
	}
}

// Routes lists the API, for documents and tests.
func Routes() []Route {
	var list []Route
	for _, r := range new(Server).rows() {
		list = append(list, r.Route)
	}
	return list
}

// route builds the router. Only this file knows echo.
func (s *Server) route() http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if he := new(echo.HTTPError); errors.As(err, &he) {
			kind := api.NotFound
			text := "there is nothing at " + c.Request().URL.Path
			if he.Code == http.StatusMethodNotAllowed {
				kind, text = api.MethodNotAllowed, c.Request().Method+" does nothing here"
			}
			err = api.Errorf(kind, "%s", text)
		}
		reply.Error(c.Response().Writer, c.Request(), err, s.log)
	}
	for _, r := range s.rows() {
		serve := func(c echo.Context) error {
			call := &call{w: c.Response().Writer, req: c.Request(), param: c.Param, who: s.access.Identify(c.Request())}
			return s.answer(r, call)
		}
		e.Add(r.Method, r.Pattern, serve)
		if r.Method == http.MethodGet {
			e.Add(http.MethodHead, r.Pattern, serve)
		}
	}
	return e
}
