package storage

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"narwharf/hooks/serverconfig"
)

// perServer are the keys and sections of a configuration that may differ between servers: where one is and
// how much it takes.
var perServer = []string{"listen", "data_dir", "allow_readable_secrets", "tls", "log", "limits", "storage", "metrics"}

// Fingerprints are those of what has to be the same everywhere, by key or section. Names of files are
// those of one machine.
func Fingerprints(cfg *serverconfig.Config) map[string]string {
	prints := make(map[string]string)
	v := reflect.ValueOf(cfg).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("toml"); name != "" && !slices.Contains(perServer, name) {
			prints[name] = Fingerprint(withoutFiles(v.Field(i)))
		}
	}
	return prints
}

// withoutFiles is a value of a configuration without keys that name files.
func withoutFiles(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Struct:
		section := make(map[string]any)
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("toml")
			if name != "" && !strings.HasSuffix(name, "_file") && !strings.HasSuffix(name, "_files") {
				section[name] = withoutFiles(v.Field(i))
			}
		}
		return section
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = withoutFiles(v.Index(i))
		}
		return list
	}
	return v.Interface()
}

// Fingerprint is a short word for a value: the same for the same.
func Fingerprint(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		text = []byte(fmt.Sprint(v))
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))[:16]
}
