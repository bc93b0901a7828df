// Package browser drives a Chromium of Debian's without a window over the pipe of its DevTools
// protocol (--remote-debugging-pipe: JSON, with a NUL at its end;
// https://chromedevtools.github.io/devtools-protocol/). It has no queue and no goroutine: who waits
// for an answer reads what else comes on the way, and notes it at the page that it is about.
package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Owner is who has a browser, a test as a rule: it ends when Fatalf is called, and calls what
// Cleanup was given at its end.
type Owner interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// A Browser is a process with pages, which share its cookies.
type Browser struct {
	t     Owner
	to    *os.File
	from  *bufio.Reader
	read  *os.File
	last  int // message
	pages map[string]*Page
}

// patience is how long a browser may take for anything.
const patience = time.Minute

// Available says whether there is one to start.
func Available() bool {
	_, err := exec.LookPath("chromium")
	return err == nil
}

// flags keep it from the network of its makers, and from the machine's other browsers.
var flags = []string{
	"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--force-color-profile=srgb",
	"--disable-background-networking", "--disable-component-update", "--no-proxy-server",
	"--remote-debugging-pipe", "--ignore-certificate-errors",
}

// New starts one with an empty page, which it returns. It believes every certificate.
func New(t Owner) *Page {
	t.Helper()
	toChild, to, err := os.Pipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	from, fromChild, err := os.Pipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	cmd := exec.Command("chromium", append(flags, "--user-data-dir="+t.TempDir(), "about:blank")...)
	cmd.ExtraFiles, cmd.SysProcAttr = []*os.File{toChild, fromChild}, ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	_, _ = toChild.Close(), fromChild.Close()
	b := &Browser{t: t, to: to, from: bufio.NewReader(from), read: from, pages: map[string]*Page{}}
	t.Cleanup(func() {
		_ = b.write("", "Browser.close", nil)
		_ = to.Close()
		_ = from.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(io.Discard, b.from) // it is gone
		_ = from.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return b.Page()
}

// Page opens another page of the browser, an empty one.
func (b *Browser) Page() *Page {
	b.t.Helper()
	var target struct{ TargetID string }
	b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p := &Page{Browser: b, session: attached.SessionID, target: target.TargetID}
	b.pages[p.session] = p
	for _, domain := range []string{"Page", "Runtime", "Network", "Log", "Audits"} {
		p.call(domain+".enable", nil, nil)
	}
	return p
}

// message is one that comes.
type message struct {
	ID      int             `json:"id"`
	Session string          `json:"sessionId"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// write sends a message, of a page or of the browser itself.
func (b *Browser) write(session, method string, params map[string]any) error {
	b.last++
	text, err := json.Marshal(struct {
		ID      int            `json:"id"`
		Session string         `json:"sessionId,omitempty"`
		Method  string         `json:"method"`
		Params  map[string]any `json:"params,omitempty"`
	}{b.last, session, method, params})
	if err != nil {
		return err
	}
	_, err = b.to.Write(append(text, 0))
	return err
}

// next reads a message, and notes what is nobody's answer. It is nil when the time is over.
func (b *Browser) next(limit time.Duration) *message {
	b.t.Helper()
	_ = b.read.SetReadDeadline(time.Now().Add(limit))
	if _, err := b.from.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	_ = b.read.SetReadDeadline(time.Now().Add(patience))
	text, err := b.from.ReadBytes(0)
	m := new(message)
	if err == nil {
		err = json.Unmarshal(text[:len(text)-1], m)
	}
	if err != nil {
		b.t.Fatalf("the browser does not answer: %v", err)
	}
	if p := b.pages[m.Session]; p != nil && m.ID == 0 {
		p.note(m)
	}
	return m
}

// call sends a message and waits for its answer.
func (b *Browser) call(session, method string, params map[string]any, result any) {
	b.t.Helper()
	if err := b.ask(session, method, params, result); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// ask is call where the answer may be an error.
func (b *Browser) ask(session, method string, params map[string]any, result any) error {
	b.t.Helper()
	if err := b.write(session, method, params); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	for id := b.last; ; {
		m := b.next(patience)
		switch {
		case m == nil:
			return fmt.Errorf("%s: no answer in %s", method, patience)
		case m.ID != id:
			continue
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case result != nil:
			if err := json.Unmarshal(m.Result, result); err != nil {
				return fmt.Errorf("%s: %w", method, err)
			}
		}
		return nil
	}
}
