package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A Browser is a Chromium of Debian's without a window, that does what a test says over the pipe of its
// DevTools protocol (--remote-debugging-pipe: JSON, with a NUL at its end).
type Browser struct {
	t       testing.TB
	to      *os.File
	from    *bufio.Reader
	read    *os.File
	session string   // the page's
	last    int      // message
	loads   int      // pages that were loaded
	Said    []string // what the console has of errors, also that something was against the page's CSP
}

// patience is how long a browser may take for anything.
const patience = time.Minute

// message is one of the protocol.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// NewBrowser starts one with an empty page. It believes every certificate.
func NewBrowser(t testing.TB) *Browser {
	t.Helper()
	needTool(t, "chromium", "chromium")
	toChild, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, fromChild, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--no-proxy-server",
		"--remote-debugging-pipe", "--ignore-certificate-errors", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles, cmd.SysProcAttr = []*os.File{toChild, fromChild}, ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	toChild.Close()
	fromChild.Close()
	b := &Browser{t: t, to: to, from: bufio.NewReader(from), read: from}
	t.Cleanup(func() {
		b.send(message{Method: "Browser.close"})
		to.Close()
		_ = from.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(io.Discard, b.from) // it is gone
		from.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Network", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

func (b *Browser) send(m message) {
	b.last++
	m.ID, m.Session = b.last, b.session
	if m.Method == "Browser.close" {
		m.Session = ""
	}
	text, err := json.Marshal(m)
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	if err != nil && m.Method != "Browser.close" {
		b.t.Fatalf("browser: %s: %v", m.Method, err)
	}
}

// next reads a message, and notes what is none's answer.
func (b *Browser) next() message {
	b.t.Helper()
	_ = b.read.SetReadDeadline(time.Now().Add(patience))
	text, err := b.from.ReadBytes(0)
	var m message
	var about struct {
		Entry struct{ Level, Text, URL string }
	}
	if err == nil {
		params := struct{ Params *json.RawMessage }{new(json.RawMessage)}
		text = text[:len(text)-1]
		if err = errors.Join(json.Unmarshal(text, &m), json.Unmarshal(text, &params)); err == nil && m.Method == "Log.entryAdded" {
			err = json.Unmarshal(*params.Params, &about)
		}
	}
	if err != nil {
		b.t.Fatalf("the browser does not answer: %v", err)
	}
	switch {
	case m.Method == "Page.loadEventFired":
		b.loads++
	case about.Entry.Level == "error":
		b.Said = append(b.Said, about.Entry.Text+" "+about.Entry.URL)
	}
	return m
}

func (b *Browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.send(message{Method: method, Params: params})
	for id := b.last; ; {
		m := b.next()
		if m.ID != id {
			continue
		}
		if m.Error != nil {
			b.t.Fatalf("browser: %s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.t.Fatalf("browser: %s: %v", method, err)
			}
		}
		return
	}
}

// loaded does what makes the browser load a page, and waits until that is there.
func (b *Browser) loaded(do func()) {
	b.t.Helper()
	before := b.loads
	for do(); b.loads == before; {
		b.next()
	}
}

// Open opens a page.
func (b *Browser) Open(url string) {
	b.t.Helper()
	b.loaded(func() { b.call("Page.navigate", map[string]any{"url": url}, nil) })
}

// Eval is the text of an expression in the page.
func (b *Browser) Eval(script string) string {
	b.t.Helper()
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	b.call("Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "userGesture": true}, &got)
	if e := got.ExceptionDetails; e != nil {
		b.t.Fatalf("browser, at %s: %s: %s %s", b.Eval("location.href"), script, e.Text, e.Exception.Description)
	}
	return fmt.Sprint(got.Result.Value)
}

// Click clicks on what a CSS selector means, which leads to another page.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	b.loaded(func() { b.Eval("void document.querySelector(" + quoted(selector) + ").click()") })
}

// Type puts a text into a field.
func (b *Browser) Type(selector, text string) {
	b.t.Helper()
	b.Eval("document.querySelector(" + quoted(selector) + ").focus()")
	b.call("Input.insertText", map[string]any{"text": text}, nil)
}

// Text is what can be read on the page.
func (b *Browser) Text() string { b.t.Helper(); return b.Eval("document.body.innerText") }

// Cookie is one whose name has a word in it, as the browser keeps it.
func (b *Browser) Cookie(word string) (c struct {
	Name, Value, SameSite string
	HTTPOnly, Secure      bool
}) {
	b.t.Helper()
	var got struct {
		Cookies []struct {
			Name, Value, SameSite string
			HTTPOnly, Secure      bool
		}
	}
	b.call("Network.getCookies", nil, &got)
	for _, one := range got.Cookies {
		if strings.Contains(one.Name, word) {
			c = one
		}
	}
	return c
}

func quoted(s string) string { text, _ := json.Marshal(s); return string(text) }
