package policy

import (
	"slices"
	"testing"

	"narwharf/hooks/window"
)

func TestPolicyCheck(t *testing.T) {
	good := Channel{Windows: []window.Window{{Days: []string{"sat", "sun"}, From: "00:00", To: "23:59", Zone: "Asia/Tokyo"}}, RebootSlots: 2, RebootTimeout: 60, MinAgent: "v0.5.1-3-gabc"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(p *Channel){
		"no such day":      func(p *Channel) { p.Windows[0].Days = []string{"Monday"} },
		"a day twice":      func(p *Channel) { p.Windows[0].Days = []string{"mon", "mon"} },
		"24:00":            func(p *Channel) { p.Windows[0].To = "24:00" },
		"no minutes":       func(p *Channel) { p.Windows[0].From = "4" },
		"no such zone":     func(p *Channel) { p.Windows[0].Zone = "Europe/Atlantis" },
		"whose local time": func(p *Channel) { p.Windows[0].Zone = "Local" },
		"a path":           func(p *Channel) { p.Windows[0].Zone = "../../etc/passwd" },
		"too many":         func(p *Channel) { p.Windows = slices.Repeat(p.Windows, 51) },
		"negative slots":   func(p *Channel) { p.RebootSlots = -1 },
		"a short timeout":  func(p *Channel) { p.RebootTimeout = 59 },
		"a long confirm":   func(p *Channel) { p.ConfirmTimeout = 3601 },
		"a long probation": func(p *Channel) { p.ProbationMin = 1 << 40 },
		"no version":       func(p *Channel) { p.MinAgent = "new" },
	} {
		p := good
		p.Windows = slices.Clone(p.Windows)
		change(&p)
		if err := p.Check(); err == nil {
			t.Errorf("%s: %+v is taken", name, p)
		}
	}
}
