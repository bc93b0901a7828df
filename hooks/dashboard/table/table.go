// Package table is how a long table comes in pages, and in which order, by its URL.
package table

import (
	"fmt"
	"html"
	"html/template"
	"maps"
	"net/url"
	"strconv"
)

// Pages is which part of a table is shown.
type Pages struct {
	path  string
	query url.Values
	total int
	per   int
	page  int // from 1
}

// Of is the page of ?page= in a table of total rows, per of them on each. A page that there is not is the
// nearest.
func Of(path string, query url.Values, total, per int) Pages {
	page, err := strconv.Atoi(query.Get("page"))
	if err != nil {
		page = 1
	}
	last := max(1, (total+per-1)/per)
	return Pages{path, query, total, per, min(max(page, 1), last)}
}

// Range is the rows of the page: from on, and below to.
func (p Pages) Range() (from, to int) {
	from = (p.page - 1) * p.per
	return from, min(from+p.per, p.total)
}

// Slice is the rows of the page.
func Slice[T any](p Pages, rows []T) []T {
	from, to := p.Range()
	return rows[from:to]
}

// with is a URL with a parameter set to another value, "" for none.
func with(base, path string, query url.Values, name, value string) string {
	q := maps.Clone(query)
	if q == nil {
		q = url.Values{}
	}
	q.Del("page")
	if q.Del(name); value != "" {
		q.Set(name, value)
	}
	u := base + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	return html.EscapeString(u)
}

// HTML is where in the table one is, and links to the pages before and after, nothing if there is one page.
// base is the path of public_url.
func (p Pages) HTML(base string) template.HTML {
	if p.total <= p.per {
		return ""
	}
	from, to := p.Range()
	text := fmt.Sprintf(`<p class="buttons pages">%d–%d of %d`, from+1, to, p.total)
	if p.page > 1 {
		text += fmt.Sprintf(` <a class="button" rel="prev" href="%s">Previous</a>`, with(base, p.path, p.query, "page", strconv.Itoa(p.page-1)))
	}
	if to < p.total {
		text += fmt.Sprintf(` <a class="button" rel="next" href="%s">Next</a>`, with(base, p.path, p.query, "page", strconv.Itoa(p.page+1)))
	}
	return template.HTML(text + `</p>`) //nolint:gosec // numbers, and URLs that are escaped
}

// Sort is by which column a table is sorted.
type Sort struct {
	path    string
	query   url.Values
	By      string
	Reverse bool // the largest first
}

// By reads ?sort=COLUMN, or -COLUMN for the reverse. A column that is not in columns is the first of them.
func By(path string, query url.Values, columns ...string) Sort {
	s := Sort{path: path, query: query}
	for _, c := range append(columns, columns[0]) {
		for _, s.Reverse = range []bool{false, true} {
			if s.By = c; query.Get("sort") == s.name() {
				return s
			}
		}
	}
	s.Reverse = false
	return s
}

func (s Sort) name() string {
	if s.Reverse {
		return "-" + s.By
	}
	return s.By
}

// Order is a comparison in the order that is asked for.
func (s Sort) Order(c int) int {
	if s.Reverse {
		return -c
	}
	return c
}

// Head is the head of a column with a link that sorts by it, and turns the order round where it is
// sorted by it already. class is that of the cell.
func (s Sort) Head(base, column, label, class string) template.HTML {
	to, state := column, ""
	if s.By == column {
		state = ` aria-sort="ascending"`
		if s.Reverse {
			state = ` aria-sort="descending"`
		} else {
			to = "-" + column
		}
	}
	return template.HTML(fmt.Sprintf(`<th scope="col" class="%s"%s><a href="%s">%s</a></th>`, html.EscapeString(class), state, //nolint:gosec // all of it is escaped
		with(base, s.path, s.query, "sort", to), html.EscapeString(label)))
}
