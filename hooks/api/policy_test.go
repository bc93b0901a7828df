package api

import (
	"slices"
	"testing"
)

func TestPolicyCheck(t *testing.T) {
	good := ChannelPolicy{Windows: []Window{{Days: []string{"sat", "sun"}, From: "00:00", To: "23:59", Zone: "Asia/Tokyo"}}, RebootSlots: 2, RebootTimeout: 60, MinAgent: "v0.5.1-3-gabc"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(p *ChannelPolicy){
		"no such day":      func(p *ChannelPolicy) { p.Windows[0].Days = []string{"Monday"} },
		"a day twice":      func(p *ChannelPolicy) { p.Windows[0].Days = []string{"mon", "mon"} },
		"24:00":            func(p *ChannelPolicy) { p.Windows[0].To = "24:00" },
		"no minutes":       func(p *ChannelPolicy) { p.Windows[0].From = "4" },
		"no such zone":     func(p *ChannelPolicy) { p.Windows[0].Zone = "Europe/Atlantis" },
		"whose local time": func(p *ChannelPolicy) { p.Windows[0].Zone = "Local" },
		"a path":           func(p *ChannelPolicy) { p.Windows[0].Zone = "../../etc/passwd" },
		"too many":         func(p *ChannelPolicy) { p.Windows = slices.Repeat(p.Windows, 51) },
		"negative slots":   func(p *ChannelPolicy) { p.RebootSlots = -1 },
		"a short timeout":  func(p *ChannelPolicy) { p.RebootTimeout = 59 },
		"a long confirm":   func(p *ChannelPolicy) { p.ConfirmTimeout = 3601 },
		"a long probation": func(p *ChannelPolicy) { p.ProbationMin = 1 << 40 },
		"no version":       func(p *ChannelPolicy) { p.MinAgent = "new" },
	} {
		p := good
		p.Windows = slices.Clone(p.Windows)
		change(&p)
		if err := p.Check(); err == nil {
			t.Errorf("%s: %+v is taken", name, p)
		}
	}
}
