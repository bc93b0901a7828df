// Package logbook writes what the engine decides into the audit log.
package logbook

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/rollout"
)

// logged are decisions about single hosts that stand in the log, each step's in one line.
// The host's own report that it is well, or on its way, stands there already.
var logged = []string{"granted", "fault", "bad", "revert", "back", "left"}

// By is who decides what no person did.
const By = "the server"

// maxNames is how many hosts a line names.
const maxNames = 20

type release struct {
	channel string
	seq     int64
}

// Note writes what a step has decided into the audit log: a line for each decision about
// a roll-out, and one for all about its hosts.
func Note(tx *mirror.Tx, out *rollout.Changes) {
	hosts := make(map[release]map[string][]string)
	var order []release
	for _, x := range out.Decisions {
		if x.Host == "" {
			audit.Note(tx, event(x))
			continue
		}
		if !slices.Contains(logged, x.Kind) {
			continue
		}
		of := release{x.Channel, x.Seq}
		if hosts[of] == nil {
			hosts[of] = make(map[string][]string)
			order = append(order, of)
		}
		word := x.Kind
		if x.Text != "" {
			word += " (" + strings.ReplaceAll(x.Text, "_", " ") + ")"
		}
		hosts[of][word] = append(hosts[of][word], x.Host)
	}
	for _, of := range order {
		audit.Note(tx, hostsEvent(of, hosts[of]))
	}
}

func event(x rollout.Decision) api.Event {
	e := api.Event{Kind: "rollout." + x.Kind, By: By, Channel: x.Channel, Seq: x.Seq, Alarm: x.Alarm}
	e.Text = fmt.Sprintf("release %d of %s is %s", x.Seq, x.Channel, x.Kind)
	switch x.Kind {
	case "wave":
		e.Text = fmt.Sprintf("release %d of %s: wave %d is open", x.Seq, x.Channel, x.Wave)
	case "passed":
		e.Text = fmt.Sprintf("release %d of %s: wave %d has passed", x.Seq, x.Channel, x.Wave)
	case "quarantined":
		e.Text = fmt.Sprintf("release %d of %s", x.Seq, x.Channel)
	}
	if x.Text != "" {
		e.Text += ": " + x.Text
	}
	if x.Wave > 0 {
		e.Data = map[string]string{"wave": strconv.Itoa(x.Wave)}
	}
	return e
}

func hostsEvent(of release, words map[string][]string) api.Event {
	e := api.Event{Kind: "rollout.hosts", By: By, Channel: of.channel, Seq: of.seq, Data: make(map[string]string)}
	var parts []string
	for _, word := range slices.Sorted(maps.Keys(words)) {
		names := words[word]
		slices.Sort(names)
		list := strings.Join(names[:min(len(names), maxNames)], ", ")
		if more := len(names) - maxNames; more > 0 {
			list += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, word+": "+list)
		kind, _, _ := strings.Cut(word, " ")
		n, _ := strconv.Atoi(e.Data[kind])
		e.Data[kind] = strconv.Itoa(n + len(names))
		if len(words) == 1 && len(names) == 1 {
			e.Host = names[0]
		}
	}
	e.Text = fmt.Sprintf("release %d of %s: %s", of.seq, of.channel, strings.Join(parts, "; "))
	return e
}
