package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Amount is a number of hosts, or a share of some: 3 or "25%" in JSON.
type Amount struct {
	N       int // hosts, or hundredths of a percent
	Percent bool
}

const (
	whole     = 100 * 100
	maxAmount = 10_000_000
)

// Share is a share in percent.
func Share(percent int) *Amount { return &Amount{percent * 100, true} }

// Number is a number of hosts.
func Number(n int) *Amount { return &Amount{n, false} }

// ParseAmount reads "3" and "12.5%".
func ParseAmount(text string) (Amount, error) {
	bad := fmt.Errorf("%q is neither a number of hosts nor a share like \"25%%\"", text)
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	if !percent {
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > maxAmount {
			return Amount{}, bad
		}
		return Amount{N: n}, nil
	}
	units, part, dot := strings.Cut(number, ".")
	n, err := strconv.Atoi(units)
	if err != nil || n < 0 || n > 100 || dot && (part == "" || len(part) > 2) {
		return Amount{}, bad
	}
	hundredths := 0
	if dot {
		if hundredths, err = strconv.Atoi((part + "0")[:2]); err != nil || hundredths < 0 {
			return Amount{}, bad
		}
	}
	if n = n*100 + hundredths; n > whole {
		return Amount{}, bad
	}
	return Amount{n, true}, nil
}

// Up is the amount of total, a share rounded up.
func (a *Amount) Up(total int) int {
	if !a.Percent {
		return a.N
	}
	return int((int64(total)*int64(a.N) + whole - 1) / whole)
}

// Down is the amount of total, a share rounded down, but at least one.
func (a *Amount) Down(total int) int {
	if !a.Percent {
		return max(a.N, 1)
	}
	return max(int(int64(total)*int64(a.N)/whole), 1)
}

// String is what ParseAmount reads.
func (a Amount) String() string {
	switch {
	case !a.Percent:
		return strconv.Itoa(a.N)
	case a.N%100 == 0:
		return strconv.Itoa(a.N/100) + "%"
	}
	return strings.TrimSuffix(fmt.Sprintf("%d.%02d", a.N/100, a.N%100), "0") + "%"
}

// UnmarshalJSON reads 3 and "25%".
func (a *Amount) UnmarshalJSON(text []byte) (err error) {
	var s string
	if json.Unmarshal(text, &s) != nil {
		s = string(text)
		if strings.ContainsAny(s, "%{[n") {
			return fmt.Errorf("%s is neither a number of hosts nor a share like \"25%%\"", s)
		}
	}
	*a, err = ParseAmount(s)
	return err
}

// MarshalJSON writes what UnmarshalJSON reads.
func (a Amount) MarshalJSON() ([]byte, error) {
	if a.Percent {
		return json.Marshal(a.String())
	}
	return json.Marshal(a.N)
}

// Duration is a time like "10m", "24h" or "7d" in JSON. A number is refused: of what
// would it be?
type Duration time.Duration

var errNoDuration = errors.New(`a time is written like "90s", "10m", "24h" or "7d"`)

// UnmarshalJSON reads "10m".
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) != nil {
		return fmt.Errorf("%s: %w", text, errNoDuration)
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 3650 {
			return fmt.Errorf("%q: %w", s, errNoDuration)
		}
		*d = Duration(n) * Duration(24*time.Hour)
		return nil
	}
	t, err := time.ParseDuration(s)
	if err != nil || t < 0 {
		return fmt.Errorf("%q: %w", s, errNoDuration)
	}
	*d = Duration(t)
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// String is "10m" and not "10m0s".
func (d Duration) String() string {
	const day = Duration(24 * time.Hour)
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = text[:len(text)-2]
	}
	if strings.HasSuffix(text, "h0m") {
		text = text[:len(text)-2]
	}
	return text
}
