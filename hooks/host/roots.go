package host

import (
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/narinfo"
)

// rootOwner begins the names of hosts as owners of roots (package root).
const rootOwner = "host:"

// RootOwner is a host as an owner of roots.
func RootOwner(host string) string { return rootOwner + host }

// OfRoots is the host whose name as an owner of roots this is.
func OfRoots(owner string) (host string, ok bool) { return strings.CutPrefix(owner, rootOwner) }

// Roots are the systems that a host said it runs or may go back to.
func Roots(st *api.Status) (paths []narinfo.Path) {
	if st == nil {
		return nil
	}
	for _, system := range []string{st.Current, st.Booted, st.Profile, st.Previous, st.Confirmed} {
		p, err := narinfo.ParsePath(system[:max(strings.LastIndexByte(system, '/'), 0)], system)
		if err == nil { // else it names no system, as before the first
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
