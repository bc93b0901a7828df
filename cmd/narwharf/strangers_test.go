package main

import (
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/hooks/api/gate"
	"narwharf/hooks/api/login"
	"narwharf/hooks/api/notify"
	"narwharf/hooks/api/plan"
	"narwharf/hooks/api/policy"
	"narwharf/hooks/api/replica"
	"narwharf/hooks/api/retention"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/rollout"
)

// stranger is a server all of whose words are one and all of whose numbers are one, at every URL that a command asks.
func stranger(word string, number int64) http.Handler {
	answers := map[string]any{}
	list := func(path, key string, item any) { answers[path] = map[string]any{key: []any{item, item}} }
	of := func(v any) any {
		fill(reflect.ValueOf(v).Elem(), word)
		numbers(reflect.ValueOf(v).Elem(), number)
		return v
	}
	summary := of(new(rollout.Summary)).(*rollout.Summary) //nolint:forcetypeassert // of returns what it is given
	summary.State = rollout.Completed
	answers["/api/v1/rollouts/web"], answers["/api/v1/rollouts/web/pause"] = summary, summary
	for _, verb := range []string{"resume", "abort", "retry", "advance", "skip"} {
		answers["/api/v1/rollouts/web/"+verb] = summary
	}
	channel := of(new(api.Channel)).(*api.Channel) //nolint:forcetypeassert // as above
	channel.Release = nil
	answers["/api/v1/channels/web"] = channel
	list("/api/v1/channels", "channels", channel)
	host := of(new(api.Host)).(*api.Host) //nolint:forcetypeassert // as above
	host.Status.Head = nil
	answers["/api/v1/hosts/h"] = host
	for _, verb := range []string{"approve", "retry", "revert", "release"} {
		answers["/api/v1/hosts/h/"+verb] = host
	}
	list("/api/v1/hosts", "hosts", host)
	list("/api/v1/channels/web/history", "history", of(new(api.HistoryItem)))
	answers["/api/v1/channels/web/policy"] = of(new(policy.Set))
	answers["/api/v1/channels/web/plan"] = of(new(plan.Plan))
	answers["/api/v1/channels/web/keys"] = of(new(api.Keys))
	list("/api/v1/rollouts", "rollouts", summary)
	list("/api/v1/budgets", "budgets", of(new(rollouts.Budget)))
	answers["/api/v1/budgets/n"] = of(new(rollouts.Budget))
	list("/api/v1/holds", "holds", of(new(rollouts.Hold)))
	answers["/api/v1/holds/n"] = of(new(rollouts.Hold))
	list("/api/v1/quarantine", "quarantined", of(new(rollout.Quarantine)))
	answers["/api/v1/freeze"] = of(new(rollouts.Freeze))
	list("/api/v1/alarms", "alarms", of(new(alarm.Alarm)))
	answers["/api/v1/alarms/5/take"], answers["/api/v1/alarms/5/close"] = of(new(alarm.Alarm)), of(new(alarm.Alarm))
	list("/api/v1/notify", "targets", of(new(notify.Target)))
	answers["/api/v1/notify/n/test"] = of(new(notify.Attempt))
	list("/api/v1/checks", "checks", of(new(gate.Check)))
	answers["/api/v1/checks/n"] = of(new(gate.Answer))
	list("/api/v1/reboots", "slots", of(new(gate.Slot)))
	list("/api/v1/replicas", "replicas", of(new(replica.Replica)))
	list("/api/v1/sessions", "sessions", of(new(login.Session)))
	answers["/api/v1/login"] = of(new(login.Info))
	list("/api/v1/pins", "pins", of(new(retention.Pin)))
	answers["/api/v1/pins/n"] = of(new(retention.Pin))
	status := of(new(retention.Status)).(*retention.Status) //nolint:forcetypeassert // as above
	status.Running = nil
	answers["/api/v1/gc"] = status
	answers["/api/v1/why"] = of(new(retention.Why))
	answers["/api/v1/du"] = of(new(retention.Usage))
	answers["/api/v1/paths/"+nobody] = of(new(retention.Deleted))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := answers[r.URL.Path]
		if r.URL.Path == "/api/v1/events" && r.URL.Query().Get("since") == "1" {
			v, ok = map[string]any{"events": []any{of(new(api.Event)), of(new(api.Event))}, "next": 7}, true
		}
		if !ok {
			e := filled[api.Error](word)
			e.Kind, e.RetryAfter, e.Channel, v = api.Forbidden, 0, nil, &e
			w.WriteHeader(http.StatusForbidden)
		}
		_ = json.NewEncoder(w).Encode(v)
	})
}

// numbers sets every number in a value.
func numbers(v reflect.Value, n int64) {
	switch {
	case v.CanInt() && v.CanSet():
		v.SetInt(n)
		if v.OverflowInt(n) {
			v.SetInt(1)
		}
	case v.CanUint() && v.CanSet():
		v.SetUint(uint64(n) >> (64 - v.Type().Bits()))
	case v.CanFloat() && v.CanSet():
		v.SetFloat(float64(n))
	case v.Kind() == reflect.Bool && v.CanSet():
		v.SetBool(n != 0)
	case v.Kind() == reflect.Pointer && !v.IsNil():
		numbers(v.Elem(), n)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		for i := range v.Len() {
			numbers(v.Index(i), n)
		}
	case v.Kind() == reflect.Map:
		for _, key := range v.MapKeys() {
			value := reflect.New(v.Type().Elem()).Elem()
			value.Set(v.MapIndex(key))
			numbers(value, n)
			v.SetMapIndex(key, value)
		}
	case v.Kind() == reflect.Struct:
		if _, isTime := v.Interface().(time.Time); isTime {
			return
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				numbers(f, n)
			}
		}
	}
}

// remotes are the commands that talk to a server, with what is typed behind them.
func remotes(c *cobra.Command) (list []string) {
	for _, sub := range c.Commands() {
		list = append(list, remotes(sub)...)
	}
	name := strings.TrimPrefix(c.CommandPath(), "narwharf ")
	for _, other := range append(apart, "import", "use") {
		if name == other {
			return list
		}
	}
	if c.Runnable() && c.Flags().Lookup("server") != nil {
		list = append(list, name+" "+typed[name])
	}
	return list
}

// TestWordsOfStrangers: nothing that a server says, at whatever command, is obeyed by a terminal or stands for a line of its
// own, and none of its numbers makes a command panic.
func TestWordsOfStrangers(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	said := func(command, word string, number int64) string {
		srv := httptest.NewServer(stranger(word, number))
		defer srv.Close()
		var out, errs strings.Builder
		run(append(strings.Fields(command), "--server", srv.URL), strings.NewReader(""), &out, &errs)
		return out.String() + errs.String()
	}
	list := remotes(rootCommand())
	for _, command := range list {
		for _, number := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
			plain := said(command, "word", number)
			if plain == "" || strings.Contains(plain, "panic") {
				t.Errorf("%s: with %d: %q", command, number, plain)
			}
			if number > 1 || number < 0 {
				continue
			}
			for _, nasty := range []string{"w\nord", "w\r\x1b[2Jord", "w\u009b2J\u202eord", "w\tord\u2028", "*|`<b>ord"} {
				text := said(command, nasty, number)
				if bad := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); bad >= 0 {
					t.Errorf("%s: with %q", command, text[bad:min(len(text), bad+20)])
				}
				if got, want := strings.Count(text, "\n"), strings.Count(plain, "\n"); got != want {
					t.Errorf("%s: %q makes %d lines of %d: %.600q", command, nasty, got, want, text)
				}
			}
		}
	}
}
