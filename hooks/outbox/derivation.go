package outbox

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// output is one of a derivation's, by its name, its path and, of a fixed one, what it has to be.
var output = regexp.MustCompile(`\("[^"]*","(/[^"]*)","[^"]*","[^"]*"\)`)

// Outputs are the paths of a derivation's outputs that its file knows: Nix 2.8.0 calls its post-build-hook
// with the derivation alone, and an empty OUT_PATHS.
func Outputs(derivation string) (paths []string, err error) {
	text, err := os.ReadFile(derivation)
	if err != nil {
		return nil, err
	}
	list, begins := strings.CutPrefix(string(text), "Derive([")
	list, _, ends := strings.Cut(list, "],[")
	if !begins || !ends {
		return nil, fmt.Errorf("%s is no derivation", derivation)
	}
	for _, m := range output.FindAllStringSubmatch(list, -1) {
		paths = append(paths, m[1])
	}
	return paths, nil
}
