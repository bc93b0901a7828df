package terminal

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"narwharf/cache/state/progress"
	"narwharf/narinfo/clip"
)

const (
	redraw = 100 * time.Millisecond
	// A line into a log comes at most that often, and the first when somebody may ask
	// himself what is going on.
	patience = 10 * time.Second
	barWidth = 24
)

// Progress shows how far long work is: as a bar on a terminal, else as a line now and
// then. It is safe for concurrent use.
type Progress struct {
	out io.Writer
	tty bool

	mu    sync.Mutex
	step  string
	begun time.Time // of the step
	shown time.Time
	bar   bool // one stands in the last line
}

// NewProgress shows it on out, which is stderr: the results go elsewhere.
func NewProgress(out io.Writer) *Progress {
	return &Progress{out: clip.Raw(out), tty: size(out) != nil, shown: time.Now()}
}

// With is a context whose work is shown.
func (p *Progress) With(ctx context.Context) context.Context {
	return progress.With(ctx, func(s progress.Step) { p.Report(s.Name, s.Done, s.Total) })
}

// Report says that of a step, "checking NARs", so much is done; a total of 0 is
// unknown.
func (p *Progress) Report(step string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if step != p.step {
		p.step, p.begun = step, now
	}
	every := patience
	if p.tty {
		every = redraw
	}
	if now.Sub(p.shown) < every {
		return
	}
	p.shown = now
	step = clip.Line(step, 200)
	text := fmt.Sprintf("%s: %d", step, done)
	if total > 0 {
		text = fmt.Sprintf("%s: %d of %d (%d %%)", step, done, total, done*100/total)
	}
	if left := p.left(now, done, total); left > 0 {
		text += fmt.Sprintf(", %s left", left)
	}
	if !p.tty {
		fmt.Fprintln(p.out, text)
		return
	}
	if total > 0 {
		full := int(min(done, total) * barWidth / total)
		text = "[" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "] " + text
	}
	p.bar = true
	fmt.Fprintf(p.out, "\r\x1b[K%s", cut(text, Width(p.out)-1))
}

// left guesses how long a step still takes, once that can be guessed.
func (p *Progress) left(now time.Time, done, total int64) time.Duration {
	spent := now.Sub(p.begun)
	if done <= 0 || done >= total || spent < 5*time.Second {
		return 0
	}
	return time.Duration(float64(spent) * float64(total-done) / float64(done)).Round(time.Second)
}

// End takes the bar away.
func (p *Progress) End() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *Progress) clear() {
	if p.bar {
		fmt.Fprintf(p.out, "\r\x1b[K")
		p.bar = false
	}
}

// Writer is out for what is printed meanwhile: the bar gives way to it.
func (p *Progress) Writer(out io.Writer) io.Writer { return &beside{p, out} }

type beside struct {
	*Progress
	out io.Writer
}

// Write implements io.Writer.
func (b *beside) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
	return b.out.Write(text)
}
