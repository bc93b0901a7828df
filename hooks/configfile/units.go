package configfile

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is written as "400d", "24h" or "90s", and is not below 0.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	days, inDays := strings.CutSuffix(string(text), "d")
	unit := time.Duration(1)
	if inDays {
		days, unit = days+"h", 24
	}
	v, err := time.ParseDuration(days)
	if err != nil || v < 0 || v > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a duration like \"24h\", \"90s\" or \"90d\"", text)
	}
	*d = Duration(v * unit)
	return nil
}

// Size is a number of bytes, written as 1048576 or "50GiB".
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}}

// UnmarshalText implements encoding.TextUnmarshaler, for numbers too.
func (s *Size) UnmarshalText(text []byte) error {
	digits, unit := strings.TrimSpace(string(text)), int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(digits, u.name); ok {
			digits, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return fmt.Errorf("%q is not a size like \"50GiB\" (units KiB, MiB, GiB, TiB)", text)
	}
	*s = Size(n * unit)
	return nil
}
