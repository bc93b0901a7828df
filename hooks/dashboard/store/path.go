package store

import (
	"errors"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/api/retention"
	"narwharf/hooks/dashboard/frame"
	"narwharf/signing/access/scope"
)

var (
	hashPart = regexp.MustCompile(`^[0-9abcdfghijklmnpqrsvwxyz]{32}$`)
	inText   = regexp.MustCompile(`(?:^|/)([0-9abcdfghijklmnpqrsvwxyz]{32})(?:-|\.|$)`)
)

// perSearch is how many paths a search shows.
const perSearch = 100

// search is the view of ?q=: a part of a name, a hash part, or a store path.
type search struct {
	Text  string
	Found []Found
	Begun bool   // it goes on from an earlier one
	Next  string // URL that goes on, "" if all was looked through
}

func forbidden() error {
	return api.Errorf(api.Forbidden, "Single paths are for those who have the scope pull, or operate for all channels.")
}

func (o *Options) search(r *frame.Request) (*frame.Page, error) {
	if !looks(r) {
		return nil, forbidden()
	}
	s := &search{Text: strings.TrimSpace(r.Query.Get("q")), Begun: r.Query.Get("after") != ""}
	p := &frame.Page{Title: "Paths", Body: "search", Data: s}
	if m := inText.FindStringSubmatch(s.Text); m != nil {
		one, err := o.Cache.Path(r.Context(), m[1])
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			s.Found = []Found{{Hash: m[1], Path: one.Info.Path.In(one.Store), Size: one.Info.NarSize, At: one.At, By: one.By}}
		}
		return p, nil
	}
	if s.Text == "" {
		return p, nil
	}
	if after := r.Query.Get("after"); len(s.Text) > 200 || after != "" && !hashPart.MatchString(after) {
		return nil, api.Errorf(api.BadRequest, "A name has at most 211 characters, and after is a hash part.")
	}
	var next string
	var err error
	if s.Found, next, err = o.Cache.Search(r.Context(), s.Text, r.Query.Get("after"), perSearch); err != nil {
		return nil, err
	}
	if next != "" {
		s.Next = "/ui/paths?" + url.Values{"q": {s.Text}, "after": {next}}.Encode()
	}
	return p, nil
}

// shown is the view of a path.
type shown struct {
	*Path
	Hash, Full, Narinfo string
	Deriver, Log        string
	Why                 *retention.Why // nil for those who may not ask
	Chains              []chain
}

type chain struct {
	Owner string
	Paths []Found
}

func (o *Options) path(r *frame.Request) (*frame.Page, error) {
	hash := r.Param("hash")
	switch {
	case !looks(r):
		return nil, forbidden()
	case !hashPart.MatchString(hash):
		return nil, api.Errorf(api.BadRequest, "%.64q is not the hash part of a store path: 32 of its digits.", hash)
	}
	one, err := o.Cache.Path(r.Context(), hash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.NotFound, "%s is not in this cache.", hash)
	}
	if err != nil {
		return nil, err
	}
	v := &shown{Path: one, Hash: hash, Full: one.Info.Path.In(one.Store), Narinfo: string(one.Info.Append(nil))}
	if d := one.Info.Deriver; d != "" {
		v.Deriver = string(d)
		v.Log = path.Base(string(d))
	}
	if r.Can(scope.Operate, "") {
		if err := r.Get("/api/v1/why?"+url.Values{"path": {v.Full}}.Encode(), &v.Why); err != nil {
			return nil, err
		}
		for _, c := range v.Why.Roots[:min(len(v.Why.Roots), 50)] {
			one := chain{Owner: c.Owner}
			for _, p := range c.Paths[:min(len(c.Paths), 50)] {
				hash, _, _ := strings.Cut(path.Base(p), "-")
				one.Paths = append(one.Paths, Found{Hash: hash, Path: p})
			}
			v.Chains = append(v.Chains, one)
		}
	}
	return &frame.Page{Title: one.Info.Path.Name(), Body: "path", Data: v}, nil
}
