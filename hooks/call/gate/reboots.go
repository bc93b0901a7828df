package gate

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/api/gate"
	"narwharf/hooks/call"
	"narwharf/hooks/fleetlock"
	"narwharf/hooks/policy"
	"narwharf/hooks/reboot"
)

// Reboots answers what is about reboot slots.
type Reboots struct {
	Slots    *reboot.Slots
	Policies *policy.Policies
	Locks    *fleetlock.Locks
}

// List is GET /reboots: who holds a slot, of the channels that the caller may see.
func (h *Reboots) List(c *call.Call) error {
	sees := c.Sees()
	list := make([]gate.Slot, 0, 8)
	for name, sl := range h.Slots.All() {
		if of := c.Query.Get("channel"); !sees(sl.Channel) || of != "" && of != sl.Channel {
			continue
		}
		s := gate.Slot{Group: sl.Group, Host: name, Channel: sl.Channel, Seq: sl.Seq, Granted: sl.Granted, Overdue: sl.Alarmed, By: sl.By, Limit: h.Policies.Of(sl.Channel).RebootSlots}
		if id, ok := reboot.IsForeign(name); ok {
			s.Host, s.ID, s.Limit = "", id, h.Locks.Limit(sl.Group)
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b gate.Slot) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Host+a.ID, b.Host+b.ID))
	})
	return c.JSON(http.StatusOK, map[string]any{"slots": list}, nil)
}

// Free is DELETE /reboots/{channel}/{id}, where the channel is the group: it takes the slot of
// a machine that is no host and will not come back.
func (h *Reboots) Free(c *call.Call) error {
	m := fleetlock.Machine{ID: c.Param("id"), Group: c.Param("channel")}
	if err := reboot.CheckID(m.ID); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	return c.Done(h.Locks.Free(c.Ctx(), m, c.Who.Name))
}

// PreReboot is POST /fleetlock/v1/pre-reboot.
func (h *Reboots) PreReboot(c *call.Call) error {
	m, err := machine(c)
	if err == nil {
		err = h.Locks.PreReboot(c.Ctx(), m, c.Who.Name)
	}
	return locked(c, err)
}

// SteadyState is POST /fleetlock/v1/steady-state.
func (h *Reboots) SteadyState(c *call.Call) error {
	m, err := machine(c)
	if err == nil {
		err = h.Locks.SteadyState(c.Ctx(), m, c.Who.Name)
	}
	return locked(c, err)
}

// locked answers with 200 and no body, unless there is an error.
func locked(c *call.Call, err error) error {
	if err == nil {
		c.W.WriteHeader(http.StatusOK)
	}
	return err
}

// machine reads a request of FleetLock. That the caller has a right of some group was checked;
// of which it may ask is known from the body alone.
func machine(c *call.Call) (m fleetlock.Machine, err error) {
	if c.Req.Header.Get(fleetlock.Header) != "true" {
		return m, api.Errorf(api.BadRequest, "send the header %s: true, as FleetLock wants it", fleetlock.Header)
	}
	body, done, err := c.Body(c.Rooms.Room, fleetlock.MaxBody, fleetlock.MaxBody)
	if err != nil {
		return m, err
	}
	defer done()
	if m, err = fleetlock.Read(body); err == nil {
		err = c.About(m.Group)
	}
	return m, err
}
