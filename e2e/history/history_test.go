package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const s = time.Second

func promote(from, at int64, id string, call, end time.Duration, is Outcome) Op {
	return Op{Kind: Promote, Client: "ci-" + id, Key: "web", From: from, At: at, ID: id, Call: call, End: end, Outcome: is}
}

func read(at int64, id string, call, end time.Duration) Op {
	return Op{Kind: Read, Client: "reader", Key: "web", At: at, ID: id, Call: call, End: end, Outcome: OK}
}

func op(kind Kind, client, key string, at int64, call, end time.Duration, is Outcome) Op {
	return Op{Kind: kind, Client: client, Key: key, At: at, Call: call, End: end, Outcome: is}
}

func grant(host, id string, at time.Duration) Op {
	o := op(Grant, host, "web", 1, at-s/10, at, OK)
	o.ID = id
	return o
}

var histories = []struct {
	name, wrong string // "" is that nothing is
	ops         []Op
}{
	{"one after the other", "", []Op{promote(0, 1, "a", 0, 1*s, OK), read(1, "a", 2*s, 3*s), promote(1, 2, "b", 4*s, 5*s, OK), read(2, "b", 6*s, 7*s)}},
	{"a reading beside a promote, either way", "", []Op{promote(0, 1, "a", 0, 4*s, OK), read(0, "", 1*s, 2*s), read(1, "a", 1*s, 3*s)}},
	{"the winner of a race", "", []Op{promote(0, 1, "a", 0, 4*s, OK), promote(0, 1, "b", 0, 4*s, Refused), read(1, "a", 5*s, 6*s)}},
	{"an unknown promote that was made later", "", []Op{promote(0, 1, "a", 0, 1*s, Unknown), read(0, "", 2*s, 3*s), read(1, "a", 4*s, 5*s)}},
	{"an unknown promote that never was made", "", []Op{promote(0, 1, "a", 0, 1*s, Unknown), read(0, "", 2*s, 3*s), promote(0, 1, "b", 4*s, 5*s, OK), read(1, "b", 6*s, 7*s)}},
	{"an unknown promote, asked for again", "", []Op{promote(0, 1, "a", 0, 1*s, Unknown), promote(0, 1, "a", 2*s, 3*s, OK), read(1, "a", 4*s, 5*s)}},
	{"a refusal whose reason is no other release", "", []Op{promote(-1, 1, "a", 0, 1*s, Refused), promote(0, 1, "b", 2*s, 3*s, OK)}},

	{"a promote that was answered is lost", "linearisable", []Op{promote(0, 1, "a", 0, 1*s, OK), read(0, "", 2*s, 3*s)}},
	{"two winners", "linearisable", []Op{promote(0, 1, "a", 0, 4*s, OK), promote(0, 1, "b", 0, 4*s, OK)}},
	{"a lost update", "linearisable", []Op{promote(0, 1, "a", 0, 1*s, OK), promote(0, 1, "b", 2*s, 3*s, OK), read(1, "b", 4*s, 5*s)}},
	{"an old reading", "linearisable", []Op{promote(0, 1, "a", 0, 1*s, OK), promote(1, 2, "b", 2*s, 3*s, OK), read(1, "a", 4*s, 5*s)}},
	{"readings that go back beside a promote", "linearisable", []Op{promote(0, 1, "a", 0, 9*s, OK), read(1, "a", 1*s, 2*s), read(0, "", 3*s, 4*s)}},
	{"an unknown promote that was seen, and is gone", "linearisable", []Op{promote(0, 1, "a", 0, 1*s, Unknown), read(1, "a", 2*s, 3*s), read(0, "", 4*s, 5*s)}},
	{"a refusal though nobody won", "linearisable", []Op{promote(0, 1, "a", 0, 1*s, Refused), read(0, "", 2*s, 3*s)}},
	{"a release that nobody made", "linearisable", []Op{read(1, "x", 0, 1*s)}},
	{"another release of the seq", "linearisable", []Op{promote(0, 1, "a", 0, 1*s, OK), read(1, "b", 2*s, 3*s)}},

	{"a path that is there", "", []Op{op(Fetch, "c", "p", 0, 0, 1*s, Refused), op(Upload, "c", "p", 0, 0, 2*s, OK), op(Fetch, "d", "p", 0, 1*s, 2*s, Refused), op(Fetch, "d", "p", 0, 3*s, 4*s, OK)}},
	{"an upload without an answer", "", []Op{op(Upload, "c", "p", 0, 0, 2*s, Unknown), op(Fetch, "d", "p", 0, 3*s, 4*s, Refused)}},
	{"an upload that was answered is lost", "lost", []Op{op(Upload, "c", "p", 0, 0, 2*s, OK), op(Fetch, "d", "p", 0, 3*s, 4*s, Refused)}},
	{"a path that was served is lost", "lost", []Op{op(Upload, "c", "p", 0, 0, 2*s, Unknown), op(Fetch, "d", "p", 0, 3*s, 4*s, OK), op(Fetch, "e", "p", 0, 5*s, 6*s, Refused)}},

	{"reports in order", "", []Op{op(Report, "h", "h", 1, 0, 1*s, OK), op(Report, "h", "h", 2, 2*s, 5*s, Unknown), op(Status, "op", "h", 1, 3*s, 4*s, OK), op(Status, "op", "h", 2, 6*s, 7*s, OK)}},
	{"a report that was answered is lost", "out of order", []Op{op(Report, "h", "h", 1, 0, 1*s, OK), op(Report, "h", "h", 2, 2*s, 3*s, OK), op(Status, "op", "h", 1, 4*s, 5*s, OK)}},
	{"what is shown goes back", "out of order", []Op{op(Report, "h", "h", 1, 0, 1*s, OK), op(Report, "h", "h", 2, 0, 9*s, Unknown), op(Status, "op", "h", 2, 1*s, 2*s, OK), op(Status, "op", "h", 1, 3*s, 4*s, OK)}},
	{"a report that is said again is shown after the first time", "", []Op{op(Report, "h", "h", 2, 0, 1*s, Unknown), op(Status, "op", "h", 2, 2*s, 3*s, OK), op(Report, "h", "h", 2, 4*s, 5*s, OK)}},
	{"a report is shown before it was made", "out of nothing", []Op{op(Status, "op", "h", 2, 1*s, 2*s, OK), op(Report, "h", "h", 2, 3*s, 4*s, OK)}},

	{"grants one after the other", "", []Op{grant("h1", "1", 1*s), op(Done, "h1", "web", 1, 2*s, 3*s, OK), grant("h2", "2", 4*s), op(Done, "h2", "web", 1, 5*s, 6*s, OK)}},
	{"a grant that is told again", "", []Op{grant("h1", "1", 1*s), grant("h1", "1", 2*s), op(Done, "h1", "web", 1, 2*s, 3*s, OK)}},
	{"two at once where one may", "had grants", []Op{grant("h1", "1", 1*s), grant("h2", "2", 4*s), op(Done, "h1", "web", 1, 5*s, 6*s, OK)}},
	{"a grant for two", "granted twice", []Op{grant("h1", "1", 1*s), grant("h1", "2", 2*s)}},

	{"who hears in time", "", []Op{promote(0, 1, "a", 0, 1*s, OK), op(Seen, "h1", "db", 1, 1*s, 2*s, OK)}},
	{"a host that is told of an older release", "back", []Op{op(Seen, "h1", "web", 2, 1*s, 2*s, OK), op(Seen, "h1", "web", 1, 3*s, 4*s, OK)}},
}

func TestHistories(t *testing.T) {
	for _, c := range histories {
		wrong := Check(c.ops, Rules{AtOnce: map[string]int{"web": 1}})
		if (c.wrong == "") != (len(wrong) == 0) || len(wrong) > 0 && !strings.Contains(wrong[0], c.wrong) {
			t.Errorf("%s: %q, want %q", c.name, wrong, c.wrong)
		}
	}
}

func TestHeard(t *testing.T) {
	ops := []Op{promote(0, 1, "a", 0, 1*s, OK), op(Seen, "h1", "web", 1, 1*s, 3*s, OK), op(Seen, "h2", "web", 1, 1*s, 9*s, OK), op(Seen, "h3", "web", 0, 1*s, 2*s, OK)}
	r := Rules{Hosts: map[string][]string{"web": {"h1", "h2", "h3"}}, Within: 4 * s}
	if wrong := Check(ops, r); len(wrong) != 2 || !strings.HasPrefix(wrong[0], "h2 ") || !strings.HasPrefix(wrong[1], "h3 ") {
		t.Errorf("%q", wrong)
	}
	r.Healed = 5 * s
	if wrong := Check(ops, r); len(wrong) != 1 || !strings.HasPrefix(wrong[0], "h3 ") {
		t.Errorf("healed later: %q", wrong)
	}
}

// What a server shows may be a second old, and older while it is cut off.
func TestLag(t *testing.T) {
	for _, c := range []struct {
		name  string
		ops   []Op
		wrong int
	}{
		{"an old reading", []Op{promote(0, 1, "a", 0, 1*s, OK), read(0, "", 1500*time.Millisecond, 2*s)}, 0},
		{"too old", []Op{promote(0, 1, "a", 0, 1*s, OK), read(0, "", 2500*time.Millisecond, 3*s)}, 1},
		{"cut off", []Op{promote(0, 1, "a", 0, 12*s, OK), read(0, "", 18*s, 18*s)}, 0},
		{"cut off, from long before", []Op{promote(0, 1, "a", 0, 1*s, OK), read(0, "", 18*s, 18*s)}, 1},
		{"long after it was cut off", []Op{promote(0, 1, "a", 0, 12*s, OK), read(0, "", 28*s, 28*s)}, 1},
		{"a promote is not excused", []Op{promote(0, 1, "a", 0, 12*s, OK), promote(0, 1, "b", 12*s, 13*s, OK)}, 1},
		{"an old report", []Op{op(Report, "h", "h", 1, 0, 1*s, OK), op(Status, "A", "h", 0, 1500*time.Millisecond, 2*s, OK)}, 0},
		{"too old a report", []Op{op(Report, "h", "h", 1, 0, 1*s, OK), op(Status, "A", "h", 0, 3*s, 4*s, OK)}, 1},
		{"two servers, one behind", []Op{op(Report, "h", "h", 1, 0, 9*s, Unknown), op(Report, "h", "h", 2, 0, 9*s, Unknown), op(Status, "A", "h", 2, 0, 1*s, OK), op(Status, "B", "h", 1, 1500*time.Millisecond, 2*s, OK)}, 0},
		{"one server that goes back", []Op{op(Report, "h", "h", 1, 0, 9*s, Unknown), op(Report, "h", "h", 2, 0, 9*s, Unknown), op(Status, "A", "h", 2, 0, 1*s, OK), op(Status, "A", "h", 1, 1500*time.Millisecond, 2*s, OK)}, 1},
	} {
		if wrong := Check(c.ops, Rules{Lag: s, Struck: 10 * s, Healed: 20 * s}); len(wrong) != c.wrong {
			t.Errorf("%s: %q", c.name, wrong)
		}
	}
}

// What clients of one true channel see is linearisable, however their calls overlap and whichever
// answers they lose; and a reading of what never was at that time is found out.
func TestRandom(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		ops := simulate(r, 60)
		if wrong := releases(ops, Rules{}); len(wrong) > 0 {
			t.Fatalf("seed %d: %q", seed, wrong)
		}
		var last Op
		for _, o := range ops {
			if o.Kind == Promote && o.Outcome == OK && o.At > last.At {
				last = o
			}
		}
		if last.From > 0 {
			bad := append(slices.Clone(ops), read(last.From, "?", last.End+s, last.End+2*s))
			if wrong := releases(bad, Rules{}); len(wrong) != 1 {
				t.Fatalf("seed %d: a false reading was not found out", seed)
			}
		}
	}
}

// simulate is what four clients see of a channel.
func simulate(r *rand.Rand, n int) (ops []Op) {
	at := release{}
	busy := [4]time.Duration{}
	now := time.Duration(0)
	known := [4]int64{}
	for i := range n {
		now += time.Duration(r.IntN(1000)) * time.Millisecond
		c := r.IntN(len(busy))
		if now < busy[c] {
			continue
		}
		o := Op{Kind: Read, Client: fmt.Sprint(c), Key: "web", At: at.seq, ID: at.id, Outcome: OK}
		if r.IntN(2) == 0 {
			o = Op{Kind: Promote, Client: fmt.Sprint(c), Key: "web", From: known[c], At: known[c] + 1, ID: fmt.Sprint(i), Outcome: Refused}
			if at.seq == known[c] {
				at, o.Outcome = release{o.At, o.ID}, OK
			}
			if r.IntN(4) == 0 {
				o.Outcome = Unknown
			}
		}
		known[c] = at.seq
		o.Call = max(busy[c], now-time.Duration(r.IntN(900))*time.Millisecond)
		o.End = now + time.Duration(r.IntN(3000))*time.Millisecond
		busy[c] = o.End
		ops = append(ops, o)
	}
	slices.SortStableFunc(ops, func(a, b Op) int { return int(a.Call - b.Call) })
	return ops
}
