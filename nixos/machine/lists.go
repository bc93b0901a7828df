package machine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// List is a list for people, of at most eight.
func List(s []string) string {
	const most = 8
	if len(s) > most {
		return strings.Join(s[:most], ", ") + fmt.Sprintf(" and %d more", len(s)-most)
	}
	return strings.Join(s, ", ")
}

// Sorted is all of the lists, in order and without doubles.
func Sorted[T cmp.Ordered](lists ...[]T) []T {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}
