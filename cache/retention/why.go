package retention

import (
	"context"
	"slices"
	"time"

	"narwharf/cache/retention/graph"
	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/narinfo"
)

// maxChains bounds the roots that a Why names.
const maxChains = 100

// Why is why a path is here.
type Why struct {
	Path narinfo.Path `json:"path"`
	// Uploaded is set if it is an upload; a path that is not can be needed all the
	// same, and Bytes is then 0.
	Uploaded bool  `json:"uploaded"`
	Bytes    int64 `json:"bytes"`
	// Leans is the URL of the upstream that has it, where it is no upload.
	Leans string `json:"leans,omitempty"`
	// Roots are the roots that reach it, with a shortest chain each, the shortest
	// first; More is how many further ones there are.
	Roots []Chain `json:"roots"`
	More  int     `json:"more,omitempty"`
	// Used is when it, or anything that refers to it, was last of use, and GraceUntil
	// until when that keeps it without a root. Absent if it is no upload.
	Used       *time.Time `json:"used,omitempty"`
	GraceUntil *time.Time `json:"grace_until,omitempty"`
}

// Chain is how a root reaches a path.
type Chain struct {
	// Owner is whose root it is: "release:<channel>:<seq>", "host:<name>", "pin:<name>".
	Owner string `json:"owner"`
	// Paths begins with the root; each refers to the next, and the last is the path.
	Paths []narinfo.Path `json:"paths"`
}

// Why tells what keeps a path. It reads the whole index.
func (c *Collector) Why(ctx context.Context, path narinfo.Path) (*Why, error) {
	w := &Why{Path: path, Roots: []Chain{}}
	k, ok := graph.ParseKey(path.Hash())
	if !ok {
		return w, nil
	}
	g, done, err := c.marked(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	target, ok := g.Find(k)
	if c.Leaning != nil && !(ok && g.Here(target)) {
		if w.Leans, _, err = c.Leaning.Leans(ctx, path.Hash()); err != nil {
			return nil, err
		}
	}
	if !ok { // nothing refers to it, and it is not here
		return w, nil
	}
	if g.Here(target) {
		used := time.Unix(int64(g.Used[target]), 0).UTC()
		until := used.Add(c.grace())
		w.Uploaded, w.Bytes, w.Used, w.GraceUntil = true, g.Size[target], &used, &until
	}
	if !g.Kept(target) {
		return w, nil
	}
	for _, chain := range g.Chains(target) {
		if err := c.explain(ctx, g, chain, w); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// explain adds a chain for each owner of its root.
func (c *Collector) explain(ctx context.Context, g *graph.Graph, chain []uint32, w *Why) error {
	var owners []string
	err := c.State.View(ctx, func(tx state.Reader) (err error) {
		owners, err = root.Of(tx, g.Key(chain[0]).String())
		return err
	})
	if err != nil {
		return err
	}
	if room := maxChains - len(w.Roots); len(owners) > room {
		w.More += len(owners) - room
		owners = owners[:room]
	}
	if len(owners) == 0 {
		return nil // it ended meanwhile, or a damaged record is kept for fsck
	}
	var paths []narinfo.Path
	for _, v := range chain {
		p, err := c.name(ctx, g.Key(v))
		if err != nil {
			return err
		}
		paths = append(paths, p)
	}
	for _, owner := range owners {
		w.Roots = append(w.Roots, Chain{owner, slices.Clone(paths)})
	}
	return nil
}

// name is the base name of a path; of one that is nowhere the hash part alone is known.
func (c *Collector) name(ctx context.Context, k graph.Key) (narinfo.Path, error) {
	hash := k.String()
	r, err := c.Index.Get(hash)
	if found, err := thereIs(err == nil, err); err != nil {
		return "", err
	} else if found {
		return r.Info.Path, nil
	}
	if c.Local != nil {
		info, err := c.Local.Info(ctx, hash)
		if found, err := thereIs(err == nil, err); err != nil {
			return "", err
		} else if found {
			return info.Path, nil
		}
	}
	return narinfo.Path(hash + "-unknown"), nil
}
