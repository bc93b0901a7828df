package server

import (
	"narwharf/hooks/dashboard/difference"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/limits"
	"narwharf/hooks/dashboard/telling"
)

// rooms are the views of the page that are not about hosts, in the order of the navigation.
func (d *DataDir) rooms() []*frame.Room {
	return []*frame.Room{difference.Room(), limits.Room(), telling.Room()}
}
