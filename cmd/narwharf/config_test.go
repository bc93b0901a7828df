package main

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// The example says what the defaults are, and has every key.
func TestExampleIsTheDefault(t *testing.T) {
	got, err := loadConfig("../../config.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	want.path, want.DataDir = got.path, "/var/lib/narwharf"
	want.Signing.SecretKeyFiles, want.Signing.RequireUploadSig = []string{}, []string{}
	if err := want.check(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("config.example.toml is\n%+v\nand the defaults are\n%+v", got, want)
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	for _, file := range []struct{ name, before, after string }{
		{"../../config.example.toml", "\n", " ="},
		{"../../docs/config.md", "\n### `", "`"},
	} {
		text, err := os.ReadFile(file.name)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range configKeys(reflect.TypeFor[Config](), "") {
			name := key
			if strings.HasSuffix(file.name, ".toml") {
				name = key[strings.LastIndexByte(key, '.')+1:]
			}
			if n := strings.Count(string(text), file.before+name+file.after); n != 1 {
				t.Errorf("%s has the key %s %d times", file.name, key, n)
			}
		}
	}
}

// configKeys are the full names of all keys: "cache.store_dir".
func configKeys(of reflect.Type, prefix string) (keys []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		switch name := f.Tag.Get("toml"); {
		case name == "":
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, configKeys(f.Type, name+".")...)
		default:
			keys = append(keys, prefix+name)
		}
	}
	return keys
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "1KiB": 1 << 10, "64 MiB": 64 << 20, "50GiB": 50 << 30, "2TiB": 2 << 40, "7B": 7,
		"4194303TiB": 4194303 << 40,
	} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || int64(s) != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1GB", "1.5GiB", "1 GiB GiB", "9223372036854775807GiB", "4194305TiB", "0x10"} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for %d bytes", text, s)
		}
	}
}
