// Package store is the views of the cache: how large it is and was, who uploads, what was refused, what is
// kept and why, and single paths.
package store

import (
	"context"
	"embed"
	"io/fs"
	"time"

	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/rights"
	"narwharf/hooks/series"
	"narwharf/narinfo"
	"narwharf/signing/access/scope"
)

//go:embed files
var files embed.FS

// Cache is what the views ask the cache. Paths are whole: with the store's folder.
type Cache interface {
	// Path is a path by its hash part; fs.ErrNotExist, if it is not here.
	Path(ctx context.Context, hash string) (*Path, error)
	// Search finds up to limit paths whose names contain a text, whatever its case, with hash parts above
	// after. next is where to go on, "" if all was looked through.
	Search(ctx context.Context, text, after string, limit int) (found []Found, next string, err error)
}

// Path is a store path in the cache.
type Path struct {
	Info       *narinfo.Info
	Store      string // folder
	Sigs       []string
	At         time.Time // when it was uploaded, or became valid
	By         string
	Referrers  []Found // the first of them
	More       int     // that are not among them
	References []Found
}

// Found is a path that was found. Size is of its NAR.
type Found struct {
	Hash, Path string
	Size       int64
	At         time.Time
	By         string
}

// Sender is who uploaded.
type Sender struct {
	Name    string    `json:"name"`
	Paths   int64     `json:"paths"` // narinfos that were taken
	Bytes   int64     `json:"bytes"` // of bodies
	Refused int64     `json:"refused,omitempty"`
	Last    time.Time `json:"last"`
}

// Refusal is an upload that was not taken.
type Refusal struct {
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	What   string    `json:"what"` // path of the URL
	Status int       `json:"status"`
	Words  string    `json:"words"` // the first line of the answer
}

// Options of Room. All are needed.
type Options struct {
	Cache Cache
	// Uploads are who uploaded, who sent the most first, and the last uploads that were not taken, the newest first.
	Uploads func(ctx context.Context) ([]Sender, []Refusal, error)
	Past    func(ctx context.Context, group string, res series.Resolution) (*series.Table, error)
}

// Room makes the views.
func Room(o Options) *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	all := rights.Reads(scope.OfAll)
	return &frame.Room{Files: below, Views: []frame.View{
		{Path: "/ui/cache", Nav: "Cache", Needs: all, Load: o.cache},
		{Path: "/ui/paths", Needs: all, Load: o.search},
		{Path: "/ui/paths/{hash}", Needs: all, Load: o.path},
	}}
}

// looks tells whether somebody may see single paths.
func looks(r *frame.Request) bool { return r.Can(scope.Pull, "") || r.Can(scope.Operate, "") }
