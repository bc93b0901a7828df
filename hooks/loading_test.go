package hooks

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/hooks/policy"
)

// late is a state that answers one transaction late: what it has written is seen, and
// who wrote it does not know.
type late struct {
	state.Store
	lock            string
	written, answer chan struct{}
}

func (l late) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	err := l.Store.Update(ctx, locks, fn)
	if slices.Contains(locks, l.lock) {
		close(l.written)
		<-l.answer
	}
	return err
}

// A host that asks while a policy with roll-outs is being set gets its answer when that is known:
// the policy is there, and what the roll-outs say of it is not yet.
func TestNoHostSeesThatAPolicyIsSet(t *testing.T) {
	f := newFleet(t, 2)
	store := late{f.db, policy.Lock("web"), make(chan struct{}), make(chan struct{})}
	f.halt()
	f.serve(store)
	known := sync.OnceFunc(func() { close(store.answer) })
	t.Cleanup(known) // before the world's
	parked := f.park(f.admin, "web-1", true)
	ask := func(method, path string, body any) chan answer {
		got := make(chan answer, 1)
		go func() {
			a, err := f.try(method, path, f.admin, body)
			if err != nil {
				a.body = err.Error()
			}
			got <- a
		}()
		return got
	}
	set := ask("PUT", "/api/v1/channels/web/policy", json.RawMessage(`{"rollout":{"waves":[{"select":"canary","approve":true},{}]}}`))
	<-store.written
	asked := ask("GET", "/api/v1/hosts/web-2/desired?channel=web", nil)
	f.parked(2)
	f.must(f.do("GET", "/api/v1/channels/web/policy", f.admin, nil), 200, "", "rollout")
	select {
	case a := <-parked:
		t.Errorf("the host that waits is told %s", a)
	case a := <-asked:
		t.Errorf("the host that asks is told %s", a)
	default:
	}
	known()
	f.must(<-set, 200, "")
	for _, answers := range []chan answer{parked, asked} {
		select {
		case a := <-answers:
			if f.must(a, 200, ""); decode[api.Desired](t, a).Seq != 1 || strings.Contains(a.body, "loaded") {
				t.Errorf("%s", a)
			}
		case <-time.After(20 * time.Second):
			t.Error("a host waits still")
		}
	}
}
