package check

import (
	"fmt"
	"math"
	"regexp"
	"strconv"

	"narwharf/narinfo/clip"
)

// bound is what a number has to keep.
type bound struct {
	op    string
	limit float64
}

var boundGrammar = regexp.MustCompile(`^\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*$`)

func parseBound(text string) (b bound, err error) {
	m := boundGrammar.FindStringSubmatch(text)
	if m != nil {
		b.op = m[1]
		b.limit, err = strconv.ParseFloat(m[2], 64)
	}
	if m == nil || err != nil || math.IsNaN(b.limit) {
		return bound{}, fmt.Errorf(`bound %s is not like "< 0.01": one of < <= > >= == != and a number, which every series of the answer has to keep`, clip.Quote(text, 64))
	}
	return b, nil
}

// keeps tells whether a number is within the bound; NaN never is.
func (b bound) keeps(v float64) bool {
	if math.IsNaN(v) {
		return false
	}
	switch b.op {
	case "<":
		return v < b.limit
	case "<=":
		return v <= b.limit
	case ">":
		return v > b.limit
	case ">=":
		return v >= b.limit
	case "==":
		return v == b.limit
	}
	return v != b.limit
}

func (b bound) String() string { return b.op + " " + number(b.limit) }

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
