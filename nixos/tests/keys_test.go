// Package tests holds what the NixOS modules say against what the program takes, and what
// Nix made of them against what they are now. eval_test.go says how both come about.
package tests

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"narwharf/hooks/configfile"
	"narwharf/hooks/serverconfig"
	"narwharf/hooks/window"
	"narwharf/nixos/config"
)

var write = flag.Bool("write", false, "write the files that the tests compare: make nixos-keys, make nixos-eval")

// kinds are the names in nixos/modules/keys.json of types that a TOML file writes as others.
var kinds = map[reflect.Type]any{
	reflect.TypeFor[configfile.Duration](): "duration",
	reflect.TypeFor[configfile.Size]():     "size",
	reflect.TypeFor[config.Rate]():         "any",
	reflect.TypeFor[window.Window]():       "any",
}

// kindOf is what stands in keys.json of a type: the name of a kind, a table of those of a
// section, or a list with one element, of a key that may be there several times.
func kindOf(t reflect.Type) any {
	if kind, ok := kinds[t]; ok {
		return kind
	}
	switch t.Kind() {
	case reflect.Struct:
		section := make(map[string]any)
		for i := range t.NumField() {
			if name := t.Field(i).Tag.Get("toml"); name != "" {
				section[name] = kindOf(t.Field(i).Type)
			}
		}
		return section
	case reflect.Slice:
		return []any{kindOf(t.Elem())}
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int64:
		return "integer"
	}
	return "any"
}

// The modules refuse a key that the program does not know, and a duration without a unit,
// while Nix evaluates: they know all keys from this file.
func TestKeys(t *testing.T) {
	keys := map[string]any{
		"server": kindOf(reflect.TypeFor[serverconfig.Config]()),
		"agent":  kindOf(reflect.TypeFor[config.Config]()),
	}
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetIndent("", "  ")
	if err := e.Encode(keys); err != nil {
		t.Fatal(err)
	}
	const name = "../modules/keys.json"
	if *write {
		if err := os.WriteFile(name, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	is, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(is, want.Bytes()) {
		t.Error(strings.TrimPrefix(name, "../") + " has other keys than the program: make nixos-keys")
	}
}
