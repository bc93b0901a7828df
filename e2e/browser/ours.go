package browser

import (
	"fmt"
	"strings"
	"time"
)

// What people do on Narwharf's page.

// seenWithin is how long a change may take to be seen on a busy machine. On a quiet one it is a second.
const seenWithin = 30 * time.Second

// LogIn logs in with a token at a base URL.
func (p *Page) LogIn(url, token string) {
	p.t.Helper()
	p.Open(url + "/ui/login")
	p.Type("#token", token)
	p.Click("main button[type=submit]")
	if at := p.At(); at == "/ui/login" {
		p.t.Fatalf("nobody is logged in at %s: %s", url, p.Text())
	}
}

// Sees waits until a text is on the page, in upper or lower case.
func (p *Page) Sees(text string) {
	p.t.Helper()
	if !p.Until(fmt.Sprintf("(document.body?.innerText ?? '').toLowerCase().includes(%q)", strings.ToLower(text)), seenWithin) {
		p.t.Fatalf("%s does not come to say %q:\n%s", p.At(), text, p.Text())
	}
}

// Confirm presses a button of the page, which leads to a form whose path ends in a verb, and confirms
// it with a reason.
func (p *Page) Confirm(verb, reason string) {
	p.t.Helper()
	button := `main a[href$="/` + verb + `"], main a[href*="/` + verb + `?"]`
	if !p.Until("!!document.querySelector("+quoted(button)+")", seenWithin) {
		p.t.Fatalf("%s has no button %s:\n%s", p.At(), verb, p.Text())
	}
	p.Click(button)
	if reason != "" {
		p.Type("#reason", reason)
	}
	p.Click("main form button[type=submit]")
	if wrong := p.Eval(`document.querySelector(".wrong")?.innerText ?? ""`); wrong != "" {
		p.t.Fatalf("%s: %s", verb, wrong)
	}
}

// Copied is the text for copying on the page that has a word in it, "" if there is none.
func (p *Page) Copied(word string) string {
	p.t.Helper()
	return p.Eval(`[...document.querySelectorAll("[data-copy]")].map(e => e.textContent.trim()).find(text => text.includes(` + quoted(word) + `)) ?? ""`)
}
