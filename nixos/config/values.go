package config

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
)

// A Rate is bytes in a second, written as "500K", "4M" or "1G" (of 1024), or
// a number of bytes.
type Rate int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	s, unit := string(text), int64(1)
	for i, suffix := range []string{"K", "M", "G"} {
		if t, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = t, 1<<(10*(i+1))
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n <= 0 {
		return fmt.Errorf("%q is not a rate like \"500K\" or \"4M\" (bytes in a second)", text)
	}
	*r = Rate(n * unit)
	return nil
}

// NixConnections is Nix's own number of transfers at a time (http-connections).
const NixConnections = 25

// Connections are how many transfers at a time a rate is enough for. A server cuts
// who takes almost nothing (narwharf: 4 KiB a second), and so does Nix.
func (r Rate) Connections() int { return int(min(max(int64(r)/(16<<10), 1), NixConnections)) }

// ownSystem is Nix's name for what this program runs on.
func ownSystem() string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l", "riscv64": "riscv64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return arch + "-" + runtime.GOOS
}
