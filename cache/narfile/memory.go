package narfile

import (
	"bufio"
	"context"
	"encoding/binary"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"

	"narwharf/cache/refusal"
)

// Windows and dictionaries are what decoders need memory for, and a file of a few bytes may
// ask for 128 MiB. So few with a large one work at once, and the others wait; uploads do not
// wait for readers, whom they do not know.
const (
	smallWindow = 8 << 20   // as Nix makes them at its default level, at most
	maxWindow   = 128 << 20 // as `zstd --ultra -22` makes them, the most a Nix can be told to use
)

// places are for decoders at work, by the size of their window.
type places struct {
	small    chan struct{}
	large    *semaphore.Weighted // bytes of all large windows
	words    refusal.Kind
	patience time.Duration // how long one waits; Nix gives up a transfer that stands still for 5 min
}

var (
	receiving = places{make(chan struct{}, 32), semaphore.NewWeighted(2 * maxWindow), refusal.Waiting, 4 * time.Minute}
	reading   = places{make(chan struct{}, 8), semaphore.NewWeighted(maxWindow), refusal.Busy, time.Minute}
	relaying  = places{make(chan struct{}, 64), semaphore.NewWeighted(4 * maxWindow), refusal.Busy, time.Hour} // on a host, for its own Nix
)

// take waits for a place for a window. done gives it back.
func (p *places) take(window uint64) (done func(), err error) {
	if window == 0 {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.patience)
	defer cancel()
	if n := int64(limit(window)); n > smallWindow {
		if p.large.Acquire(ctx, n) == nil {
			return func() { p.large.Release(n) }, nil
		}
	} else {
		select {
		case p.small <- struct{}{}:
			return func() { <-p.small }, nil
		case <-ctx.Done():
		}
	}
	return nil, refusal.New(p.words, "this cache unpacks as many NARs as it has memory for: try again later, or compress with a smaller window (compression-level)")
}

// limit is what a decoder may allocate that has a place for a window: later parts of its
// stream may want some more.
func limit(window uint64) uint64 {
	size := uint64(smallWindow)
	for size < window && size < maxWindow {
		size *= 2
	}
	return size
}

func zstdWindow(r *bufio.Reader) uint64 {
	head, _ := r.Peek(18) // what is too short is for the decoder to say
	var h zstd.Header
	if h.Decode(head) != nil || h.Skippable {
		return maxWindow // a frame behind it has one
	}
	if h.SingleSegment {
		return max(h.FrameContentSize, 1)
	}
	return max(h.WindowSize, 1)
}

// brotliWindow reads the first bits of a stream (RFC 7932, 9.1).
func brotliWindow(r *bufio.Reader) uint64 {
	head, _ := r.Peek(1)
	if len(head) == 0 || head[0]&1 == 0 {
		return 1 << 16
	}
	if n := head[0] >> 1 & 7; n != 0 {
		return 1 << (17 + n)
	}
	if m := head[0] >> 4 & 7; m > 1 {
		return 1 << (8 + m)
	}
	return 1 << 17
}

// xzWindow reads the size of the dictionary in the header of the first block (the xz file
// format, 3.1 and 5.3.1). A filter before LZMA2 is rare, and gets a large place.
func xzWindow(r *bufio.Reader) uint64 {
	const streamHeader = 12
	head, _ := r.Peek(streamHeader + 24)
	if len(head) < streamHeader+6 || head[streamHeader] == 0 {
		return smallWindow // no block
	}
	at := head[streamHeader+1:]
	flags := at[0]
	at = at[1:]
	for _, has := range []byte{0x40, 0x80} { // sizes, as numbers of 7 bits a byte
		for flags&has != 0 {
			if len(at) == 0 {
				return maxWindow
			}
			more := at[0]&0x80 != 0
			if at = at[1:]; !more {
				break
			}
		}
	}
	if flags&3 != 0 || len(at) < 3 || at[0] != 0x21 || at[1] != 1 || at[2] > 40 {
		return maxWindow
	}
	if at[2] == 40 {
		return math.MaxUint32
	}
	return uint64(2|at[2]&1) << (at[2]/2 + 11)
}

// lzmaWindow reads the size of the dictionary in the header of the old format of xz's tools
// (lzma-file-format.txt of XZ Utils, 1.1.2).
func lzmaWindow(r *bufio.Reader) uint64 {
	head, _ := r.Peek(5)
	if len(head) < 5 {
		return smallWindow // no stream
	}
	return max(uint64(binary.LittleEndian.Uint32(head[1:])), 1)
}
