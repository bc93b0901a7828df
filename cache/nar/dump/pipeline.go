package dump

import (
	"sync"
	"sync/atomic"
)

const (
	// helpers is how many goroutines of a dump read ahead, and ahead how many batches may wait to
	// be sent. On a cached tree two do (0.76 s without, 0.53 s with two for ten times 20 000
	// files), on a cold one more are better (2.7, 2.6, 0.7 s with none, two and four).
	helpers = 4
	ahead   = 4
	// allHelpers bounds the helpers of all dumps together; a dump that gets none reads in turn
	// with writing.
	allHelpers = 32
)

// inTurnFirst are the sizes of the batches that are done before any goroutine is started: most
// store paths are over by then. The first is small, since a reader waits for it.
var inTurnFirst = []int{4, 16}

// source gives the steps of an archive in order.
type source interface {
	// fill adds about so many steps to an empty batch and says whether there are more. An error
	// is that of the step after the last one added.
	fill(b *batch, steps int) (more bool, err error)
	// close lets go of what the source holds.
	close()
}

// run sends all that src gives.
func (s *sender) run(src source) error {
	defer src.close()
	for i := 0; ; i++ {
		steps := batchSteps
		if i < len(inTurnFirst) {
			steps = inTurnFirst[i]
		} else if n := hire(); n > 0 {
			defer allHired.Add(-int32(n))
			return s.ahead(src, n)
		}
		if more, err := s.inTurn(src, steps); err != nil || !more {
			return err
		}
	}
}

var allHired atomic.Int32

// hire says how many helpers a dump may have, which it has to give back.
func hire() int {
	if now := allHired.Add(helpers); now > allHelpers {
		allHired.Add(-helpers)
		return 0
	}
	return helpers
}

// inTurn does one batch: walk, read, write.
func (s *sender) inTurn(src source, steps int) (more bool, err error) {
	b := newBatch()
	defer b.free()
	if more, b.ended = src.fill(b, steps); b.pos > 0 {
		s.pos = b.pos
	}
	b.render()
	if err := s.ctx.Err(); err != nil {
		return false, err
	}
	return more, s.batch(b)
}

// ahead sends the batches while n goroutines walk and read.
func (s *sender) ahead(src source, n int) error {
	q := &queue{src: src, order: make(chan *batch, ahead), stop: make(chan struct{})}
	for range n {
		q.wg.Go(q.work)
	}
	err := q.send(s)
	close(q.stop)
	q.wg.Wait()
	for {
		select {
		case b := <-q.order:
			<-b.ready
			b.free()
			continue
		default:
		}
		return err
	}
}

// queue is what the helpers of one dump share. Whoever fills a batch also puts it in order, under
// one lock, and then renders it while others fill the next ones.
type queue struct {
	mu     sync.Mutex
	src    source
	over   bool
	order  chan *batch
	stop   chan struct{}
	weight atomic.Int64 // bytes per step of late
	wg     sync.WaitGroup
}

func (q *queue) work() {
	for {
		b := q.next()
		if b == nil {
			return
		}
		b.render()
		if b.done > 0 {
			q.weight.Store((q.weight.Load() + int64(len(b.buf)/b.done)) / 2)
		}
		b.ready <- struct{}{}
	}
}

// next fills the next batch, or returns nil if there is none or the sender has given up.
func (q *queue) next() *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over {
		return nil
	}
	b := newBatch()
	// as many steps as will probably fit, so that nothing is left for the sender to read
	steps := min(max(batchSize*3/4/max(q.weight.Load(), 1), 4), batchSteps)
	b.more, b.ended = q.src.fill(b, int(steps))
	q.over = !b.more || b.ended != nil
	select {
	case q.order <- b:
		return b
	case <-q.stop:
		q.over = true
		b.free()
		return nil
	}
}

func (q *queue) send(s *sender) error {
	for {
		var b *batch
		select {
		case b = <-q.order:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		<-b.ready
		more, err := b.more, s.batch(b)
		b.free()
		if err != nil || !more {
			return err
		}
	}
}
