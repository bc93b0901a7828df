package telling

import (
	"html"
	"html/template"
	"regexp"
	"strings"

	"narwharf/docs"
	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/frame"
)

// entry is what the runbook says of an alarm of a kind, "" if nothing.
func entry(kind string) string {
	_, text, ok := strings.Cut(docs.Runbook, "\n## `"+kind+"`\n")
	if !ok {
		return ""
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return strings.TrimSpace(text)
}

// runbook shows the entry of ?kind=.
func runbook(r *frame.Request) (*frame.Page, error) {
	kind := r.Query.Get("kind")
	text := entry(kind)
	if text == "" {
		return nil, api.Errorf(api.NotFound, "The runbook has no entry %q.", kind)
	}
	return &frame.Page{Title: "Runbook: " + kind, Body: "runbook", Data: markdown(text)}, nil
}

var (
	codeMark = regexp.MustCompile("`([^`]+)`")
	boldMark = regexp.MustCompile(`\*\*([^*]+)\*\*`)
	linkMark = regexp.MustCompile(`\[([^\]]+)\]\([^)]*\)`)
)

// markdown is HTML of what our runbook has of Markdown: paragraphs, lists, bold, code; of links their words.
func markdown(text string) template.HTML {
	var b strings.Builder
	for block := range strings.SplitSeq(text, "\n\n") {
		items := strings.HasPrefix(block, "* ")
		for i, item := range strings.Split("\n"+strings.TrimSpace(block), "\n* ") {
			if item = strings.Join(strings.Fields(item), " "); item == "" {
				continue
			}
			item = html.EscapeString(item)
			item = linkMark.ReplaceAllString(item, "$1")
			item = codeMark.ReplaceAllString(item, "<code>$1</code>")
			item = boldMark.ReplaceAllString(item, "<b>$1</b>")
			if items || i > 0 {
				b.WriteString("<ul><li>" + item + "</li></ul>\n")
			} else {
				b.WriteString("<p>" + item + "</p>\n")
			}
		}
	}
	return template.HTML(strings.ReplaceAll(b.String(), "</ul>\n<ul>", "")) //nolint:gosec // it was escaped
}
