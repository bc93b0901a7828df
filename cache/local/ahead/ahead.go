// Package ahead packs paths of the machine's own store before anybody asks for them: those that
// were built here since it began, while no encoder is at work for a client.
//
// It is meant for a machine that builds and serves: it works at the lowest priority, evicts nothing, and
// leaves a battery alone.
package ahead

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"narwharf/cache/local"
	"narwharf/cache/local/compress"
	"narwharf/cache/nixstore/realised"
	"narwharf/narinfo"
)

// Packer packs ahead. Store and Log are needed.
type Packer struct {
	Store *local.Store
	Log   *slog.Logger
	Every time.Duration // between two looks at the store; 0: 10 s
	Power string        // a folder as /sys/class/power_supply, which is the default
	// Looked, if it is not nil, is called after each look, for tests.
	Looked func()

	begun bool
	last  int64 // number of the last path that was looked at
	queue []narinfo.Path
}

// maxQueue bounds what waits; more than that is packed when it is asked for.
const maxQueue = 50_000

// Run packs until ctx ends. What is in the store when it begins is left alone.
func (p *Packer) Run(ctx context.Context) {
	// The thread ends with this goroutine, since it cannot have its priority back.
	runtime.LockOSThread()
	if err := lowerPriority(); err != nil {
		p.Log.Warn("paths are packed ahead at the usual priority", "error", err)
	}
	if p.Every == 0 {
		p.Every = 10 * time.Second
	}
	if p.Power == "" {
		p.Power = "/sys/class/power_supply"
	}
	p.look(ctx)
	for tick := time.NewTicker(p.Every); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		p.look(ctx)
		if !onBattery(p.Power) {
			p.work(ctx)
		}
	}
}

// look puts what was built since the last look into the queue. A store that cannot be read now is read later.
func (p *Packer) look(ctx context.Context) {
	last, err := realised.LastPath(ctx, p.Store)
	var fresh []narinfo.Path
	if err == nil && p.begun && last > p.last { // else it is the first look, or another database
		fresh, last, err = realised.PathsSince(ctx, p.Store, p.last, true)
	}
	if err != nil {
		p.Log.Debug("nothing is packed ahead: the store cannot be read", "error", err)
		return
	}
	p.begun, p.last = true, last
	if p.Looked != nil {
		defer p.Looked()
	}
	for _, path := range fresh {
		if strings.HasSuffix(path.Name(), ".drv") || len(p.queue) == maxQueue {
			continue
		}
		p.queue = append(p.queue, path)
	}
}

// work packs what waits until somebody else wants an encoder.
func (p *Packer) work(ctx context.Context) {
	for len(p.queue) > 0 {
		path := p.queue[0]
		err := p.pack(ctx, path)
		if ctx.Err() != nil || errors.Is(err, compress.ErrBusy) {
			return
		}
		if errors.Is(err, compress.ErrNoRoom) {
			p.Log.Debug("nothing is packed ahead: cache.nar_cache_size or the disk has no room", "path", path)
		}
		p.queue = p.queue[1:] // whoever asks for it meets its error again
	}
	p.queue = nil
}

func (p *Packer) pack(ctx context.Context, path narinfo.Path) error {
	info, err := p.Store.Info(ctx, path.Hash())
	if err != nil {
		return err
	}
	return p.Store.Compressed.Ahead(ctx, info.NarHash, info.NarSize, p.Store.Dump(info))
}

// onBattery tells whether the machine has power supplies of which none is a mains that gives power.
func onBattery(dir string) bool {
	kinds, _ := filepath.Glob(dir + "/*/type") // fails for a bad pattern alone
	battery := false
	for _, kind := range kinds {
		read := func(name string) string {
			text, _ := os.ReadFile(filepath.Join(filepath.Dir(kind), name))
			return strings.TrimSpace(string(text))
		}
		switch read("type") {
		case "Battery":
			battery = battery || read("scope") != "Device" // a mouse's
		case "Mains", "USB", "Wireless":
			if read("online") == "1" {
				return false
			}
		}
	}
	return battery
}
