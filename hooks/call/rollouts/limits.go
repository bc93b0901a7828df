package rollouts

import (
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/call"
	"narwharf/hooks/rollout"
)

var nameGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

// named is a handler about the budget or hold in its path.
func named(serve func(c *call.Call, name string) error) func(c *call.Call) error {
	return func(c *call.Call) error {
		name := c.Param("name")
		if !nameGrammar.MatchString(name) {
			return api.Errorf(api.BadRequest, "%q is no name: 1 to 64 of a-z A-Z 0-9 . _ -, the first a letter or digit", name)
		}
		return serve(c, name)
	}
}

func (h *Handlers) budget(name string, b rollout.Budget) rollouts.Budget {
	size, taken := h.Driver.BudgetUse(name)
	return rollouts.Budget{Name: name, Budget: b, Hosts: size, Unavailable: taken}
}

// Budgets is GET /budgets.
func (h *Handlers) Budgets(c *call.Call) error {
	all, list := h.Driver.Limits().Budgets, []rollouts.Budget{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, h.budget(name, all[name]))
	}
	return c.JSON(http.StatusOK, map[string]any{"budgets": list}, nil)
}

// Budget is GET /budgets/{name}.
func (h *Handlers) Budget() func(c *call.Call) error {
	return named(func(c *call.Call, name string) error {
		b, ok := h.Driver.Limits().Budgets[name]
		if !ok {
			return notThere("budget", name)
		}
		return c.JSON(http.StatusOK, h.budget(name, b), nil)
	})
}

// PutBudget makes a budget, or replaces the one of that name.
func (h *Handlers) PutBudget() func(c *call.Call) error {
	return named(func(c *call.Call, name string) error {
		var b rollout.Budget
		if err := read(c, &b); err != nil {
			return err
		}
		if b.MaxUnavailable.N == 0 {
			return api.Errorf(api.BadRequest, "max_unavailable is missing, or 0: then no host could ever begin; to keep hosts where they are there is narwharf hold set")
		}
		if err := h.Driver.SetBudget(c.Ctx(), name, &b, c.Who.Name); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, h.budget(name, b), nil)
	})
}

// DeleteBudget is DELETE /budgets/{name}.
func (h *Handlers) DeleteBudget() func(c *call.Call) error {
	return named(func(c *call.Call, name string) error {
		return c.Done(h.Driver.SetBudget(c.Ctx(), name, nil, c.Who.Name))
	})
}

// Holds is GET /holds.
func (h *Handlers) Holds(c *call.Call) error {
	all, list := h.Driver.Limits().Holds, []rollouts.Hold{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, rollouts.Hold{Name: name, Hold: all[name]})
	}
	return c.JSON(http.StatusOK, map[string]any{"holds": list}, nil)
}

// Hold is GET /holds/{name}.
func (h *Handlers) Hold() func(c *call.Call) error {
	return named(func(c *call.Call, name string) error {
		hold, ok := h.Driver.Limits().Holds[name]
		if !ok {
			return notThere("hold", name)
		}
		return c.JSON(http.StatusOK, rollouts.Hold{Name: name, Hold: hold}, nil)
	})
}

// PutHold makes a hold, or replaces the one of that name.
func (h *Handlers) PutHold() func(c *call.Call) error {
	return named(func(c *call.Call, name string) error {
		var hold rollout.Hold
		if err := read(c, &hold); err != nil {
			return err
		}
		if hold.Select.Any() {
			return api.Errorf(api.BadRequest, `select says which hosts are held, as "site=fra": all of them at once is narwharf freeze, one alone narwharf host hold`)
		}
		err := h.ends(hold.Until)
		if err == nil {
			err = h.Driver.SetHold(c.Ctx(), name, &hold, c.Who.Name)
		}
		return c.JSON(http.StatusOK, rollouts.Hold{Name: name, Hold: hold}, err)
	})
}

// DeleteHold is DELETE /holds/{name}.
func (h *Handlers) DeleteHold() func(c *call.Call) error {
	return named(func(c *call.Call, name string) error {
		return c.Done(h.Driver.SetHold(c.Ctx(), name, nil, c.Who.Name))
	})
}

// Freeze is GET /freeze.
func (h *Handlers) Freeze(c *call.Call) error {
	f := h.Driver.Frozen()
	return c.JSON(http.StatusOK, rollouts.Freeze{Frozen: f != nil, Freeze: f}, nil)
}

// PutFreeze lets nobody begin with anything.
func (h *Handlers) PutFreeze(c *call.Call) error {
	var f rollout.Hold
	if err := read(c, &f); err != nil {
		return err
	}
	if !f.Select.Any() {
		return api.Errorf(api.BadRequest, "a freeze is of all hosts: those that a selector picks are held by narwharf hold set")
	}
	err := h.ends(f.Until)
	if err == nil {
		err = h.Driver.SetFreeze(c.Ctx(), &f, c.Who.Name)
	}
	return c.JSON(http.StatusOK, rollouts.Freeze{Frozen: true, Freeze: &f}, err)
}

// DeleteFreeze ends it. That there is none is what was asked for.
func (h *Handlers) DeleteFreeze(c *call.Call) error {
	if h.Driver.Frozen() != nil {
		if err := h.Driver.SetFreeze(c.Ctx(), nil, c.Who.Name); err != nil {
			return err
		}
	}
	return c.JSON(http.StatusOK, rollouts.Freeze{}, nil)
}

// Quarantined is GET /quarantine: of the channels that the caller may look at.
func (h *Handlers) Quarantined(c *call.Call) error {
	sees, list := c.Sees(), []rollout.Quarantine{}
	for _, q := range h.Driver.Quarantined() {
		if sees(q.Channel) {
			list = append(list, q)
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"quarantined": list}, nil)
}

// quarantine finds one by the name of its path, or the hash in it.
func (h *Handlers) quarantine(name string) (*rollout.Quarantine, error) {
	for _, q := range h.Driver.Quarantined() {
		if base := path.Base(q.Path); base == name || strings.HasPrefix(base, name+"-") && len(name) == 32 {
			return &q, nil
		}
	}
	return nil, api.Errorf(api.NotFound, "%s is not in quarantine: narwharf quarantine list shows what is", name)
}

// Quarantine is GET /quarantine/{name}.
func (h *Handlers) Quarantine(c *call.Call) error {
	q, err := h.quarantine(c.Param("system"))
	if err == nil && !c.Sees()(q.Channel) {
		err = api.Errorf(api.NotFound, "%s is not in quarantine: narwharf quarantine list shows what is", c.Param("system"))
	}
	return c.JSON(http.StatusOK, q, err)
}

// Clear is DELETE /quarantine/{name}: the system may be given to hosts again.
func (h *Handlers) Clear(c *call.Call) error {
	q, err := h.quarantine(c.Param("system"))
	if err != nil {
		return err
	}
	return c.Done(h.Driver.Clear(c.Ctx(), q.Path, c.Who.Name))
}
