package retain

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"narwharf/cache/root"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/retention"
	"narwharf/hooks/audit"
	"narwharf/narinfo"
)

const (
	pinOwner   = "pin:"
	maxPinFile = 16 << 20
	maxReason  = 1000 // bytes
)

var pinGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,126}$`)

// CheckPin refuses what is no name of a pin.
func CheckPin(name string) error {
	if !pinGrammar.MatchString(name) {
		return api.Errorf(api.BadRequest, "%q is no name of a pin: 1 to 127 of a-z A-Z 0-9 . _ -, the first a letter or digit", name)
	}
	return nil
}

func pinLock(name string) string { return "pin:" + name }

func pinFile(name string) string { return "pins/" + name + ".json" }

// Pins are all pins, by name.
func (r *Retainer) Pins() []*retention.Pin {
	pins := []*retention.Pin{}
	for _, p := range r.pins.All() {
		pins = append(pins, p)
	}
	slices.SortFunc(pins, func(a, b *retention.Pin) int { return cmp.Compare(a.Name, b.Name) })
	return pins
}

// Pin is one of them.
func (r *Retainer) Pin(name string) (*retention.Pin, error) {
	if p := r.pins.Get(name); p != nil {
		return p, nil
	}
	return nil, noPin(name)
}

func noPin(name string) error {
	return api.Errorf(api.NotFound, "there is no pin %s: narwharf pin lists them", name)
}

// SetPin makes a pin, or replaces the one of that name. What it keeps has to be here, whole;
// of what only the local store has, the cache makes its own.
func (r *Retainer) SetPin(ctx context.Context, ask *retention.Pin, by string) (*retention.Pin, error) {
	p, roots, err := r.asked(ctx, ask)
	if err != nil {
		return nil, err
	}
	if err := r.o.Closures.Hold(ctx, roots); err != nil {
		return nil, err
	}
	paths, err := r.o.Closures.Whole(roots)
	if err != nil {
		return nil, err
	}
	if n, err := r.o.Closures.Adopt(ctx, "pin "+p.Name, by, paths); err != nil {
		return nil, err
	} else if n > 0 { // it took a while
		if _, err := r.o.Closures.Whole(roots); err != nil {
			return nil, err
		}
	}
	p.By = by
	err = r.o.Set.Update(ctx, append(root.Locks(roots), pinLock(p.Name)), func(tx *mirror.Tx) error {
		p.Created = tx.Time.UTC().Truncate(time.Second)
		text := fmt.Sprintf("pinned %s as %s", pinned(p), p.Name)
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		if p.Until != nil {
			text += ", until " + p.Until.Format(time.RFC3339)
		}
		audit.Note(tx, api.Event{Kind: "pin.set", By: by, Channel: p.Channel, Seq: p.Seq, Text: text})
		return r.put(tx, p, roots)
	})
	return p, err
}

// put stores a pin with its file and its roots.
func (r *Retainer) put(tx *mirror.Tx, p *retention.Pin, roots []narinfo.Path) error {
	r.pins.Put(tx, p.Name, p)
	text, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = r.o.Files.Write(pinFile(p.Name), append(text, '\n'))
	}
	if err == nil {
		err = root.Set(tx, pinOwner+p.Name, roots)
	}
	return err
}

// pinned is what a pin is of, in words.
func pinned(p *retention.Pin) string {
	if p.Channel != "" {
		return fmt.Sprintf("release %d of %s", p.Seq, p.Channel)
	}
	return p.Path
}

// asked is the pin that somebody asks for, and what it keeps.
func (r *Retainer) asked(ctx context.Context, ask *retention.Pin) (*retention.Pin, []narinfo.Path, error) {
	p := &retention.Pin{Name: ask.Name, Path: ask.Path, Channel: ask.Channel, Seq: ask.Seq, Reason: ask.Reason}
	switch {
	case (p.Path == "") == (p.Channel == ""):
		return nil, nil, api.Errorf(api.BadRequest, `a pin is of a store path or of a release: send {"path":"/nix/store/…"} or {"channel":"web","seq":42}`)
	case p.Path != "" && p.Seq != 0 || p.Seq < 0:
		return nil, nil, api.Errorf(api.BadRequest, "seq is of a channel, and not below 0")
	case len(p.Reason) > maxReason:
		return nil, nil, api.Errorf(api.BadRequest, "the reason has %d bytes, at most %d", len(p.Reason), maxReason)
	}
	if ask.Until != nil {
		until := ask.Until.UTC().Truncate(time.Second)
		if !until.After(r.o.Clock()) {
			return nil, nil, api.Errorf(api.BadRequest, "until is %s, which is over", until.Format(time.RFC3339))
		}
		p.Until = &until
	}
	if p.Channel == "" {
		dir := p.Path[:max(strings.LastIndexByte(p.Path, '/'), 0)]
		path, err := narinfo.ParsePath(dir, p.Path)
		if err != nil {
			return nil, nil, api.Errorf(api.BadRequest, "%v", err)
		}
		p.Paths = []string{p.Path}
		return p, []narinfo.Path{path}, nil
	}
	dir, paths, seq, err := r.o.Channels.Roots(ctx, p.Channel, p.Seq)
	if err != nil {
		return nil, nil, err
	}
	p.Seq = seq
	for _, path := range paths {
		p.Paths = append(p.Paths, path.In(dir))
	}
	return p, paths, nil
}

// roots are the paths that a pin keeps.
func roots(p *retention.Pin) (paths []narinfo.Path) {
	for _, path := range p.Paths {
		if base, err := narinfo.ParseBase(path[strings.LastIndexByte(path, '/')+1:]); err == nil {
			paths = append(paths, base)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// Unpin ends a pin. What it kept goes by and by, if nothing else keeps it.
func (r *Retainer) Unpin(ctx context.Context, name, by string) error {
	return r.end(ctx, name, func(p *retention.Pin, _ time.Time) *api.Event {
		return &api.Event{Kind: "pin.removed", By: by, Text: fmt.Sprintf("%s is not pinned as %s any more", pinned(p), name)}
	})
}

// end ends a pin with a line in the audit log, or leaves it if that is nil.
func (r *Retainer) end(ctx context.Context, name string, line func(p *retention.Pin, now time.Time) *api.Event) error {
	return r.o.Set.Update(ctx, []string{pinLock(name)}, func(tx *mirror.Tx) error {
		p := r.pins.In(tx, name)
		if p == nil {
			return noPin(name)
		}
		e := line(p, tx.Time)
		if e == nil {
			return nil
		}
		audit.Note(tx, *e)
		r.pins.Put(tx, name, nil)
		if err := root.Set(tx, pinOwner+name, nil); err != nil {
			return err
		}
		return r.o.Files.Remove(pinFile(name)) // else Restore would bring it back
	})
}

// settlePins ends pins whose time is over, and puts right what a crash may have left: a pin
// without its file or its roots, or roots without their pin.
func (r *Retainer) settlePins(ctx context.Context, owners map[string]bool) error {
	now := r.o.Clock()
	pins := r.pins.All()
	for name, p := range pins {
		var err error
		switch {
		case p.Until != nil && !p.Until.After(now):
			err = r.expire(ctx, name)
		case !owners[pinOwner+name] || !r.hasFile(name):
			err = r.again(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	for owner := range owners {
		if name, ok := strings.CutPrefix(owner, pinOwner); ok && pins[name] == nil {
			if err := r.endRoots(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// expire ends a pin whose time is over.
func (r *Retainer) expire(ctx context.Context, name string) error {
	err := r.end(ctx, name, func(p *retention.Pin, now time.Time) *api.Event {
		if p.Until == nil || p.Until.After(now) {
			return nil // it was made anew
		}
		return &api.Event{Kind: "pin.expired", Text: fmt.Sprintf("the time of the pin %s is over: %s is not kept by it any more", name, pinned(p))}
	})
	if e := new(api.Error); errors.As(err, &e) && e.Kind == api.NotFound {
		return nil
	}
	return err
}

// endRoots ends the roots of a pin that is not there.
func (r *Retainer) endRoots(ctx context.Context, name string) error {
	return r.o.Set.Update(ctx, []string{pinLock(name)}, func(tx *mirror.Tx) error {
		if r.pins.In(tx, name) != nil {
			return nil
		}
		return root.Set(tx, pinOwner+name, nil)
	})
}

func (r *Retainer) hasFile(name string) bool {
	_, err := r.o.Files.Read(pinFile(name), maxPinFile)
	return !errors.Is(err, fs.ErrNotExist)
}

// again writes file and roots of a pin.
func (r *Retainer) again(ctx context.Context, name string) error {
	p := r.pins.Get(name)
	if p == nil {
		return nil
	}
	return r.o.Set.Update(ctx, append(root.Locks(roots(p)), pinLock(name)), func(tx *mirror.Tx) error {
		if p := r.pins.In(tx, name); p != nil {
			return r.put(tx, p, roots(p))
		}
		return nil
	})
}

// Restore takes pins from their files, where the state has none.
func (r *Retainer) Restore(ctx context.Context, report func(format string, args ...any)) error {
	return r.o.Files.List("pins", func(file string) error {
		name, ok := strings.CutSuffix(file[strings.LastIndexByte(file, '/')+1:], ".json")
		if !ok || CheckPin(name) != nil || r.pins.Get(name) != nil {
			return nil
		}
		p := new(retention.Pin)
		text, err := r.o.Files.Read(file, maxPinFile)
		if err == nil {
			err = json.Unmarshal(text, p)
		}
		if err == nil && (p.Name != name || len(roots(p)) == 0) {
			err = errors.New("it is no pin of that name")
		}
		if err != nil {
			report("left out: %s: %v", file, err)
			return nil
		}
		report("restored the pin %s of %s from its file", name, pinned(p))
		return r.o.Set.Update(ctx, append(root.Locks(roots(p)), pinLock(name)), func(tx *mirror.Tx) error {
			if r.pins.In(tx, name) != nil {
				return nil
			}
			audit.Note(tx, api.Event{Kind: "pin.restored", Channel: p.Channel, Seq: p.Seq, Text: fmt.Sprintf("the pin %s of %s was restored from its file", name, pinned(p))})
			return r.put(tx, p, roots(p))
		})
	})
}
