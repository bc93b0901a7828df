// Package pace keeps what comes over a line within so many bytes a second.
package pace

import (
	"context"
	"sync"
	"time"
)

// ahead is how much may come at once after a pause, as time.
const ahead = 250 * time.Millisecond

// least is what one read may bring at any rate, most at the highest.
const (
	least = 4 << 10
	most  = 256 << 10
)

// Pace is for all who share a line. It is safe for concurrent use; a nil one has no bound.
type Pace struct {
	rate int64 // bytes a second

	mu   sync.Mutex
	paid time.Time // until when what came is paid for
}

// New makes a Pace of so many bytes a second, nil for 0.
func New(rate int64) *Pace {
	if rate <= 0 {
		return nil
	}
	return &Pace{rate: rate}
}

// Room is as much of a buffer as may be read at once.
func (p *Pace) Room(buf []byte) []byte {
	if p == nil {
		return buf
	}
	return buf[:min(int64(len(buf)), max(p.rate/8, least), most)]
}

// Wait returns when n bytes that have come are paid for, or ctx ends.
func (p *Pace) Wait(ctx context.Context, n int) {
	if p == nil || n <= 0 {
		return
	}
	p.mu.Lock()
	now := time.Now()
	if from := now.Add(-ahead); p.paid.Before(from) {
		p.paid = from
	}
	p.paid = p.paid.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	wait := p.paid.Sub(now)
	p.mu.Unlock()
	if wait <= 0 {
		return
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}
