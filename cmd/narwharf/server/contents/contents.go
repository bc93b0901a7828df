// Package contents shows the page what a cache has.
package contents

import (
	"context"
	"slices"
	"strings"
	"time"

	"narwharf/cache/stored"
	"narwharf/hooks/dashboard/store"
	"narwharf/narinfo"
)

// Contents is a store.Cache.
type Contents struct{ *stored.Cache }

// most is how many references, and referrers, a page lists.
const most = 200

// Path implements store.Cache.
func (c Contents) Path(_ context.Context, hash string) (*store.Path, error) {
	info, at, by, err := c.Info(hash)
	if err != nil {
		return nil, err
	}
	p := &store.Path{Info: info, Store: c.Uploads.StoreDir, At: at, By: by}
	made, err := c.Signer.Signatures(info)
	if err != nil {
		return nil, err
	}
	p.Sigs = slices.Concat(info.Sigs, made)
	slices.Sort(p.Sigs)
	p.Sigs = slices.Compact(p.Sigs)
	for _, ref := range info.References[:min(len(info.References), most)] {
		p.References = append(p.References, store.Found{Hash: ref.Hash(), Path: c.full(ref)})
	}
	referrers, err := c.Uploads.Index.Referrers(hash)
	if err != nil {
		return nil, err
	}
	p.More = max(len(referrers)-most, 0)
	for _, hash := range referrers[:len(referrers)-p.More] {
		if r, err := c.Uploads.Index.Get(hash); err == nil { // else it has just gone
			p.Referrers = append(p.Referrers, store.Found{Hash: hash, Path: c.full(r.Info.Path)})
		}
	}
	return p, nil
}

func (c Contents) full(p narinfo.Path) string { return p.In(c.Uploads.StoreDir) }

// patience is how long a search looks before it says what it has.
const patience = 1500 * time.Millisecond

// Search implements store.Cache.
func (c Contents) Search(ctx context.Context, text, after string, limit int) (found []store.Found, next string, err error) {
	text = strings.ToLower(text)
	for end := time.Now().Add(patience); ctx.Err() == nil; {
		hash, r, err := c.After(after)
		if hash == "" {
			return found, "", err
		}
		after = hash
		if err == nil && strings.Contains(strings.ToLower(r.Info.Path.Name()), text) { // a damaged one has no name
			found = append(found, store.Found{Hash: hash, Path: c.full(r.Info.Path), Size: r.Info.NarSize, At: r.Uploaded, By: r.By})
		}
		if len(found) == limit || time.Now().After(end) {
			return found, after, nil
		}
	}
	return found, after, ctx.Err()
}
