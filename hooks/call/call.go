// Package call is a request to the API in the hands of its handler: who makes it, how its body is
// read, how it is answered now or parked. The handlers lie in hooks and beneath this package.
package call

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/reply"
	"narwharf/hooks/rights"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// Call is a request whose right was checked.
type Call struct {
	rights.Request
	*Shared
	W     http.ResponseWriter
	Req   *http.Request
	Route string // its name
	// Parked is set when the request was taken off net/http: whoever parked it answers and counts it.
	Parked bool
}

// Shared is what all calls share.
type Shared struct {
	Access   *access.Authenticator
	Polls    *longpoll.Polls
	BodyIdle time.Duration // how long a body may be silent
	Rooms    Rooms
	Answers  *limits.Answers // that are large
	Work     *limits.Work
}

// Rooms are the memory for bodies.
type Rooms struct {
	Room      *limits.Room
	Hosts     *limits.Room // for what hosts send
	Strangers *limits.Room // for what those send who have no credential yet
}

// NewRooms are of 256, 64 and 4 MiB.
func NewRooms() Rooms {
	return Rooms{Room: limits.NewRoom(256 << 20), Hosts: limits.NewRoom(64 << 20), Strangers: limits.NewRoom(4 << 20)}
}

// Ctx is in which the call changes something: the audit log knows then for whom.
func (c *Call) Ctx() context.Context {
	return audit.For(c.Req.Context(), reply.Actor(&c.Who), reply.RequestID(c.W))
}

// UntilStop is Ctx, for what takes long: it ends with the server, too.
func (c *Call) UntilStop() (ctx context.Context, done func()) { return c.Polls.UntilStop(c.Ctx()) }

// Caller is who makes the request, for those who know nothing of HTTP.
func (c *Call) Caller() host.Caller {
	who := host.Caller{Name: c.Who.Name, TokenID: c.Who.TokenID, Host: c.Who.Host, Owner: c.Who.Grant.Owner, Address: c.Who.Address}
	if c.Need.Where == scope.OfHost {
		who.May = c.About
	}
	return who
}

// Body is that of a call, of at most limit bytes, of which held are in memory at once.
func (c *Call) Body(room *limits.Room, limit, held int64) (body io.Reader, done func(), err error) {
	done, err = room.Take(c.Req, held)
	return limits.Body(c.W, c.Req, limit, c.BodyIdle), done, err
}

// ReadJSON reads a body of at most limit bytes.
func (c *Call) ReadJSON(limit int64, value any) error {
	body, done, err := c.Body(c.Rooms.Room, limit, limit)
	if err != nil {
		return err
	}
	defer done()
	return reply.Decode(body, value)
}

// JSON answers with a value, unless there is an error.
func (c *Call) JSON(status int, value any, err error) error {
	if err != nil {
		return err
	}
	reply.JSON(c.W, status, value)
	return nil
}

// Done answers with 204, unless there is an error.
func (c *Call) Done(err error) error {
	if err == nil {
		c.W.WriteHeader(http.StatusNoContent)
	}
	return err
}

// InTurn answers with the JSON of what make returns, which costs more to make than to ask for, and is
// in memory until the client has taken it.
func (c *Call) InTurn(make func() (any, error)) error {
	done, err := c.Answers.Take(c.Req, c.Who.Name)
	if err != nil {
		return err
	}
	defer done()
	var text []byte
	err = c.Work.Do(c.Req.Context(), limits.Who(c.Who.TokenID, c.Req), func() error {
		value, err := make()
		if err == nil {
			text, err = json.Marshal(value)
		}
		return err
	})
	if err == nil {
		longpoll.WriteJSON(c.W, http.StatusOK, append(text, '\n'))
	}
	return err
}

// Poll answers a poll, now or later: then it was taken off net/http, and c is not the caller's any more.
func (c *Call) Poll(p longpoll.Poll) (err error) {
	p.Route, p.Park, p.Ends = c.Route, limits.Park, c.Who.Ends
	if topic := c.Who.Topic(); topic != "" { // of the request nothing is held
		id, met, look, all := c.Who.TokenID, c.Right, p.Look, c.Access
		p.Topics = append(slices.Clip(p.Topics), topic)
		p.Look = func() (longpoll.Answer, error) {
			if d := all.Still(context.Background(), id, met); d != nil {
				return longpoll.Answer{}, d
			}
			return look()
		}
	}
	c.Parked, err = c.Polls.Serve(c.W, c.Req, p)
	return err
}
