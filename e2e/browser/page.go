package browser

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A Page is a tab.
type Page struct {
	*Browser
	session, target string
	loads           int // documents that were loaded
	// Said is what the console has of errors, exceptions of scripts, and what was against the page's
	// Content-Security-Policy.
	Said []string
}

func (p *Page) call(method string, params map[string]any, result any) {
	p.t.Helper()
	p.Browser.call(p.session, method, params, result)
}

// note looks at an event of the page.
func (p *Page) note(m *message) {
	switch m.Method {
	case "Page.loadEventFired":
		p.loads++
	case "Log.entryAdded":
		var e struct {
			Entry struct{ Level, Text, URL string }
		}
		if json.Unmarshal(m.Params, &e) == nil && e.Entry.Level == "error" {
			p.Said = append(p.Said, e.Entry.Text+" "+e.Entry.URL)
		}
	case "Runtime.exceptionThrown":
		p.Said = append(p.Said, "exception: "+string(m.Params))
	case "Runtime.consoleAPICalled":
		var e struct{ Type string }
		if json.Unmarshal(m.Params, &e) == nil && (e.Type == "error" || e.Type == "assert") {
			p.Said = append(p.Said, "console: "+string(m.Params))
		}
	case "Audits.issueAdded":
		var e struct {
			Issue struct{ Code string }
		}
		if json.Unmarshal(m.Params, &e) == nil && e.Issue.Code == "ContentSecurityPolicyIssue" {
			p.Said = append(p.Said, "against the policy: "+string(m.Params))
		}
	}
}

// loaded does what makes the browser load a page, and waits until that is there.
func (p *Page) loaded(do func()) {
	p.t.Helper()
	before := p.loads
	do()
	for end := time.Now().Add(patience); p.loads == before; {
		if time.Now().After(end) {
			p.t.Fatalf("browser: no page was loaded in %s", patience)
		}
		p.next(time.Second)
	}
}

// Open opens a URL.
func (p *Page) Open(url string) {
	p.t.Helper()
	p.loaded(func() { p.call("Page.navigate", map[string]any{"url": url}, nil) })
}

// Eval is the text of an expression in the page; of a promise, what it comes to.
func (p *Page) Eval(script string) string {
	p.t.Helper()
	text, err := p.eval(script)
	if err != nil {
		p.t.Fatalf("browser: %.300s: %v", script, err)
	}
	return text
}

func (p *Page) eval(script string) (string, error) {
	p.t.Helper()
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	if err := p.ask(p.session, "Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "userGesture": true, "awaitPromise": true}, &got); err != nil {
		return "", err
	}
	if e := got.ExceptionDetails; e != nil {
		return "", fmt.Errorf("%s %s", e.Text, e.Exception.Description)
	}
	if text, ok := got.Result.Value.(string); ok {
		return text, nil
	}
	return fmt.Sprint(got.Result.Value), nil
}

// Until waits until an expression is true, and reports whether it came to be. The page may be loaded
// anew meanwhile.
func (p *Page) Until(script string, limit time.Duration) bool {
	p.t.Helper()
	for end := time.Now().Add(limit); ; p.Idle(50 * time.Millisecond) {
		if text, err := p.eval(script); err == nil && text == "true" {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// Idle lets the page go on for a while.
func (p *Page) Idle(d time.Duration) {
	p.t.Helper()
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if left <= 0 || p.next(left) == nil {
			return
		}
	}
}

// Click clicks on what a CSS selector means, which leads to another page.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.loaded(func() { p.Eval("void document.querySelector(" + quoted(selector) + ").click()") })
}

// Type puts a text into a field.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	p.Eval("document.querySelector(" + quoted(selector) + ").focus()")
	p.call("Input.insertText", map[string]any{"text": text}, nil)
}

// keys are those that Press knows beside letters: code, and what they write.
var keys = map[string]struct {
	code int
	text string
}{
	"Tab": {9, ""}, "Enter": {13, "\r"}, "Escape": {27, ""}, " ": {32, " "},
	"ArrowLeft": {37, ""}, "ArrowUp": {38, ""}, "ArrowRight": {39, ""}, "ArrowDown": {40, ""}, "Home": {36, ""}, "End": {35, ""},
}

// Press presses a key, by its name in KeyboardEvent.key. "Shift+" before it holds that down.
func (p *Page) Press(key string) {
	p.t.Helper()
	key, shift := strings.CutPrefix(key, "Shift+")
	k, known := keys[key]
	if !known {
		k.code, k.text = int(strings.ToUpper(key)[0]), key
	}
	event := map[string]any{"key": key, "windowsVirtualKeyCode": k.code, "text": k.text}
	if shift {
		event["modifiers"] = 8
	}
	for _, event["type"] = range []string{"keyDown", "keyUp"} {
		if event["type"] == "keyUp" {
			delete(event, "text")
		}
		p.call("Input.dispatchKeyEvent", event, nil)
	}
}

// PressTo presses a key that leads to another page.
func (p *Page) PressTo(key string) {
	p.t.Helper()
	p.loaded(func() { p.Press(key) })
}

// Text is what can be read on the page.
func (p *Page) Text() string { p.t.Helper(); return p.Eval("document.body.innerText") }

// At is where it is: path and query.
func (p *Page) At() string { p.t.Helper(); return p.Eval("location.pathname + location.search") }

// Size makes the window so wide and high, in CSS pixels; a narrow one is a telephone's.
func (p *Page) Size(width, height int) {
	p.t.Helper()
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
}

// Dark is whether the machine's user likes dark colours.
func (p *Page) Dark(dark bool) {
	p.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	p.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Scripts is whether those of pages run.
func (p *Page) Scripts(run bool) {
	p.t.Helper()
	p.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": !run}, nil)
}

// Header is sent with all that the page asks for.
func (p *Page) Header(name, value string) {
	p.t.Helper()
	p.call("Network.setExtraHTTPHeaders", map[string]any{"headers": map[string]string{name: value}}, nil)
}

// Front makes it the page that is seen; the others are hidden.
func (p *Page) Front() {
	p.t.Helper()
	p.Browser.call("", "Target.activateTarget", map[string]any{"targetId": p.target}, nil)
}

// Screenshot is what is seen of the page as a PNG, or all of it.
func (p *Page) Screenshot(whole bool) []byte {
	p.t.Helper()
	var got struct{ Data []byte }
	p.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": whole}, &got)
	return got.Data
}

// A Cookie is one as the browser keeps it.
type Cookie struct {
	Name, Value, SameSite string
	HTTPOnly, Secure      bool
}

// Cookie is one whose name has a word in it, the zero Cookie if there is none.
func (p *Page) Cookie(word string) (c Cookie) {
	p.t.Helper()
	var got struct{ Cookies []Cookie }
	p.call("Network.getCookies", nil, &got)
	for _, one := range got.Cookies {
		if strings.Contains(one.Name, word) {
			c = one
		}
	}
	return c
}

func quoted(s string) string { text, _ := json.Marshal(s); return string(text) }
