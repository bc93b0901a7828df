package hooks

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"narwharf/hooks/api"
	"narwharf/hooks/call"
	"narwharf/hooks/call/retention"
	"narwharf/hooks/desired"
	"narwharf/hooks/reply"
	"narwharf/hooks/rights"
	"narwharf/hooks/rollout"
	"narwharf/signing/access/scope"
)

// A Route is a row of the API's grammar, with what it needs: a row does not compile without.
type Route struct {
	Method  string
	Pattern string
	Name    string
	Needs   scope.Needs
}

// endpoint answers one route; what it returns as an error becomes the answer.
type endpoint func(c *call.Call) error

type row struct {
	Route
	serve endpoint
}

func (s *Server) rows() []row {
	return []row{
		{Route{"GET", "/api/v1/channels", "channel-list", rights.Looks(scope.AnyChannel)}, s.listChannels},
		{Route{"GET", "/api/v1/channels/:channel", "channel", rights.Looks(scope.InPath)}, ofChannel(s.getChannel)},
		{Route{"PUT", "/api/v1/channels/:channel", "promote", rights.PromotesPart}, ofChannel(s.promote)},
		{Route{"DELETE", "/api/v1/channels/:channel", "channel-delete", rights.Promotes}, ofChannel(s.deleteChannel)},
		{Route{"GET", "/api/v1/channels/:channel/history", "history", rights.Looks(scope.InPath)}, ofChannel(s.getHistory)},
		{Route{"GET", "/api/v1/channels/:channel/releases/:seq", "release", rights.Looks(scope.InPath)}, ofChannel(s.getRelease)},
		{Route{"GET", "/api/v1/channels/:channel/releases/:seq/difference", "difference", rights.Reads(scope.InPath)}, ofChannel(s.rollouts.Difference)},
		{Route{"GET", "/api/v1/channels/:channel/store-path", "store-path", rights.Looks(scope.InPath)}, ofChannel(s.getStorePath)},
		{Route{"GET", "/api/v1/channels/:channel/plan", "plan", rights.Reads(scope.InPath)}, ofChannel(s.rollouts.Plan)},
		{Route{"GET", "/api/v1/channels/:channel/policy", "policy", rights.Reads(scope.InPath)}, ofChannel(s.getPolicy)},
		{Route{"PUT", "/api/v1/channels/:channel/policy", "policy-put", rights.Operates(scope.InPath)}, ofChannel(s.putPolicy)},
		{Route{"GET", "/api/v1/channels/:channel/keys", "keys", rights.Looks(scope.InPath)}, ofChannel(s.getKeys)},
		{Route{"PUT", "/api/v1/channels/:channel/keys", "keys-put", rights.Promotes}, ofChannel(s.putKeys)},
		{Route{"GET", "/api/v1/channels/:channel/bootstrap", "bootstrap", rights.Joins(scope.InPath)}, ofChannel(s.credentials.Bootstrap)},
		{Route{"GET", "/api/v1/closures/:digest", "closure", scope.NeedsPull}, s.getClosure},
		{Route{"PUT", "/api/v1/closures/:digest", "closure-put", rights.SendsManifest}, s.putClosure},
		{Route{"GET", "/api/v1/hosts", "host-list", rights.Reads(scope.OfList)}, s.listHosts},
		{Route{"GET", "/api/v1/hosts/:host", "host", rights.Reads(scope.OfHost)}, ofHost(s.getHost)},
		{Route{"PATCH", "/api/v1/hosts/:host", "host-patch", rights.Operates(scope.OfHost)}, s.operated(s.patchHost)},
		{Route{"DELETE", "/api/v1/hosts/:host", "host-delete", rights.Operates(scope.OfHost)}, ofHost(s.deleteHost)},
		{Route{"POST", "/api/v1/hosts/:host/approve", "host-approve", rights.Operates(scope.OfHost)}, s.operated(s.approveHost)},
		{Route{"POST", "/api/v1/hosts/:host/refuse", "host-refuse", rights.Operates(scope.OfHost)}, ofHost(s.refuseHost)},
		{Route{"GET", "/api/v1/asks", "ask-list", rights.Reads(scope.OfList)}, s.listAsks},
		{Route{"POST", "/api/v1/hosts/:host/retry", "host-retry", rights.Operates(scope.OfHost)}, s.directHost(desired.Retry)},
		{Route{"POST", "/api/v1/hosts/:host/revert", "host-revert", rights.Operates(scope.OfHost)}, s.directHost(desired.Revert)},
		{Route{"POST", "/api/v1/hosts/:host/release", "host-release", rights.Operates(scope.OfHost)}, s.releaseHost()},
		{Route{"POST", "/api/v1/challenge", "challenge", scope.NeedsNothing}, s.credentials.Challenge},
		{Route{"POST", "/api/v1/join", "join", rights.JoinsOrProves}, s.credentials.Join},
		{Route{"POST", "/api/v1/token", "token", scope.NeedsNothing}, s.credentials.ExchangeToken},
		{Route{"DELETE", "/api/v1/token", "token-delete", scope.NeedsNothing}, s.credentials.EndToken},
		{Route{"GET", "/api/v1/hosts/:host/desired", "desired", rights.Follows(scope.InQuery)}, ofHost(s.getDesired)},
		{Route{"PUT", "/api/v1/hosts/:host/status", "status", rights.Follows(scope.InBody)}, ofHost(s.putStatus)},
		{Route{"POST", "/api/v1/hosts/:host/log", "host-log-post", rights.Follows(scope.OfHostLog)}, ofHost(s.postLog)},
		{Route{"GET", "/api/v1/hosts/:host/log", "host-log", rights.Reads(scope.OfHost)}, ofHost(s.getLog)},
		{Route{"GET", "/api/v1/rollouts", "rollout-list", rights.Reads(scope.OfList)}, s.rollouts.List},
		{Route{"GET", "/api/v1/rollouts/:channel", "rollout", rights.Reads(scope.InPath)}, ofChannel(s.rollouts.Show)},
		{Route{"GET", "/api/v1/rollouts/:channel/:seq", "rollout-seq", rights.Reads(scope.InPath)}, ofChannel(s.rollouts.Show)},
		{Route{"POST", "/api/v1/rollouts/:channel/pause", "rollout-pause", rights.Operates(scope.InPath)}, ofChannel(s.rollouts.Verb(rollout.Pause))},
		{Route{"POST", "/api/v1/rollouts/:channel/resume", "rollout-resume", rights.Operates(scope.InPath)}, ofChannel(s.rollouts.Verb(rollout.Resume))},
		{Route{"POST", "/api/v1/rollouts/:channel/abort", "rollout-abort", rights.Operates(scope.InPath)}, ofChannel(s.rollouts.Verb(rollout.Abort))},
		{Route{"POST", "/api/v1/rollouts/:channel/retry", "rollout-retry", rights.Operates(scope.InPath)}, ofChannel(s.rollouts.Verb(rollout.Retry))},
		{Route{"POST", "/api/v1/rollouts/:channel/advance", "rollout-advance", rights.Operates(scope.InPath)}, ofChannel(s.rollouts.Verb(rollout.Advance))},
		{Route{"POST", "/api/v1/rollouts/:channel/skip", "rollout-skip", rights.Operates(scope.InPath)}, ofChannel(s.rollouts.Verb(rollout.Skip))},
		{Route{"GET", "/api/v1/budgets", "budget-list", rights.Reads(scope.OfList)}, s.rollouts.Budgets},
		{Route{"GET", "/api/v1/budgets/:name", "budget", rights.Reads(scope.OfList)}, s.rollouts.Budget()},
		{Route{"PUT", "/api/v1/budgets/:name", "budget-put", rights.Operates(scope.None)}, s.rollouts.PutBudget()},
		{Route{"DELETE", "/api/v1/budgets/:name", "budget-delete", rights.Operates(scope.None)}, s.rollouts.DeleteBudget()},
		{Route{"GET", "/api/v1/holds", "hold-list", rights.Reads(scope.OfList)}, s.rollouts.Holds},
		{Route{"GET", "/api/v1/holds/:name", "hold", rights.Reads(scope.OfList)}, s.rollouts.Hold()},
		{Route{"PUT", "/api/v1/holds/:name", "hold-put", rights.Operates(scope.None)}, s.rollouts.PutHold()},
		{Route{"DELETE", "/api/v1/holds/:name", "hold-delete", rights.Operates(scope.None)}, s.rollouts.DeleteHold()},
		{Route{"GET", "/api/v1/freeze", "freeze", rights.Reads(scope.OfList)}, s.rollouts.Freeze},
		{Route{"PUT", "/api/v1/freeze", "freeze-put", rights.Operates(scope.None)}, s.rollouts.PutFreeze},
		{Route{"DELETE", "/api/v1/freeze", "freeze-delete", rights.Operates(scope.None)}, s.rollouts.DeleteFreeze},
		{Route{"GET", "/api/v1/quarantine", "quarantine-list", rights.Reads(scope.OfList)}, s.rollouts.Quarantined},
		{Route{"GET", "/api/v1/quarantine/:system", "quarantine", rights.Reads(scope.OfList)}, s.rollouts.Quarantine},
		{Route{"DELETE", "/api/v1/quarantine/:system", "quarantine-delete", rights.Operates(scope.None)}, s.rollouts.Clear},
		{Route{"GET", "/api/v1/events", "events", rights.Reads(scope.OfList)}, s.getEvents},
		{Route{"GET", "/api/v1/alarms", "alarm-list", rights.Reads(scope.OfList)}, s.telling.List},
		{Route{"POST", "/api/v1/alarms/:alarm/take", "alarm-take", rights.Operates(scope.OfAlarm)}, s.telling.Take},
		{Route{"POST", "/api/v1/alarms/:alarm/close", "alarm-close", rights.Operates(scope.OfAlarm)}, s.telling.Close},
		{Route{"GET", "/api/v1/notify", "notify-list", rights.Operates(scope.None)}, s.telling.Targets},
		{Route{"POST", "/api/v1/notify/:target/test", "notify-test", rights.Operates(scope.None)}, s.telling.Test},
		{Route{"GET", "/api/v1/replicas", "replica-list", rights.Operates(scope.None)}, s.getReplicas},
		{Route{"GET", "/api/v1/login", "login", scope.NeedsNothing}, s.credentials.Login},
		{Route{"GET", "/api/v1/sessions", "session-list", scope.NeedsNothing}, s.credentials.ListSessions},
		{Route{"DELETE", "/api/v1/sessions/:session", "session-delete", scope.NeedsNothing}, s.credentials.EndSession},
		{Route{"GET", "/api/v1/pins", "pin-list", rights.Operates(scope.None)}, s.retention.Pins},
		{Route{"GET", "/api/v1/pins/:pin", "pin", rights.Operates(scope.None)}, retention.OfPin(s.retention.Pin)},
		{Route{"PUT", "/api/v1/pins/:pin", "pin-put", rights.Operates(scope.None)}, retention.OfPin(s.retention.PutPin)},
		{Route{"DELETE", "/api/v1/pins/:pin", "pin-delete", rights.Operates(scope.None)}, retention.OfPin(s.retention.DeletePin)},
		{Route{"GET", "/api/v1/gc", "gc", rights.Operates(scope.None)}, s.retention.Collected},
		{Route{"POST", "/api/v1/gc", "gc-post", rights.Collects}, s.retention.Collect},
		{Route{"GET", "/api/v1/why", "why", rights.Operates(scope.None)}, s.retention.Why},
		{Route{"GET", "/api/v1/du", "du", rights.Reads(scope.OfAll)}, s.retention.Usage},
		{Route{"DELETE", "/api/v1/paths/:path", "path-delete", rights.Admins}, s.retention.DeletePath},
		{Route{"GET", "/api/v1/checks", "check-list", rights.ReadsAny}, s.checks.List},
		{Route{"POST", "/api/v1/checks/:check", "check", rights.Asks}, s.checks.Ask},
		{Route{"GET", "/api/v1/reboots", "reboot-list", rights.Reads(scope.OfList)}, s.reboots.List},
		{Route{"DELETE", "/api/v1/reboots/:channel/:id", "reboot-free", rights.Operates(scope.InPath)}, s.reboots.Free},
		{Route{"POST", "/fleetlock/v1/pre-reboot", "pre-reboot", rights.Reboots}, s.reboots.PreReboot},
		{Route{"POST", "/fleetlock/v1/steady-state", "steady-state", rights.Reboots}, s.reboots.SteadyState},
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
	rows := s.rows()
	for i := range rows {
		r := &rows[i]
		serve := func(c echo.Context) error {
			return s.answer(r, &call.Call{Shared: s.shared, W: c.Response().Writer, Req: c.Request(), Request: rights.Request{
				Who: s.access.Identify(c.Request()), Param: c.Param, Query: c.Request().URL.Query(), ChannelOf: s.channelOf,
				Proofs: len(s.Identities.Taken()) > 0,
			}})
		}
		e.Add(r.Method, r.Pattern, serve)
		if r.Method == http.MethodGet {
			e.Add(http.MethodHead, r.Pattern, serve)
		}
	}
	return e
}
