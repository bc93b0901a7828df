package configfile

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"strconv"

	"github.com/pelletier/go-toml/v2"
)

// Set gives a key that is in no section a text, and leaves all else as it stands, comments too.
func Set(text []byte, key, value string) ([]byte, error) {
	was := map[string]any{}
	if err := toml.Unmarshal(text, &was); err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	line := regexp.MustCompile(`(?m)^([ \t]*` + regexp.QuoteMeta(key) + `[ \t]*=[ \t]*)("(?:[^"\\\n]|\\.)*"|'[^'\n]*')`)
	set := []byte(key + " = " + strconv.Quote(value) + "\n")
	if at := line.FindSubmatchIndex(text); at != nil {
		set = append(append(append([]byte{}, text[:at[4]]...), strconv.Quote(value)...), text[at[5]:]...)
	} else {
		set = append(set, text...)
	}
	want, is := maps.Clone(was), map[string]any{}
	want[key] = value
	if err := toml.Unmarshal(set, &is); err != nil || !reflect.DeepEqual(is, want) {
		return nil, errors.New("it cannot be changed without harm to the rest: write " + key + " = " + strconv.Quote(value) + " into it yourself")
	}
	return set, nil
}
