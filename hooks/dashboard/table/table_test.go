package table

import (
	"net/url"
	"testing"
)

// TestPages: which rows, and what stands below.
func TestPages(t *testing.T) {
	rows := make([]int, 120)
	for page, want := range map[string][2]int{"": {0, 50}, "2": {50, 100}, "3": {100, 120}, "99": {100, 120}, "-1": {0, 50}, "x": {0, 50}, "99999999999999999999": {0, 50}} {
		p := Of("/ui/x", url.Values{"page": {page}}, len(rows), 50)
		if from, to := p.Range(); from != want[0] || to != want[1] || len(Slice(p, rows)) != to-from {
			t.Errorf("page %q is %d to %d", page, from, to)
		}
	}
	p := Of("/ui/x", url.Values{"page": {"2"}, "q": {`"><b>&`}}, 120, 50)
	want := `<p class="buttons pages">51–100 of 120 <a class="button" rel="prev" href="/base/ui/x?page=1&amp;q=%22%3E%3Cb%3E%26">Previous</a> <a class="button" rel="next" href="/base/ui/x?page=3&amp;q=%22%3E%3Cb%3E%26">Next</a></p>`
	if got := string(p.HTML("/base")); got != want {
		t.Errorf("%s", got)
	}
	if got := Of("/ui/x", nil, 50, 50).HTML(""); got != "" {
		t.Errorf("one page: %s", got)
	}
	if from, to := Of("/ui/x", nil, 0, 50).Range(); from != 0 || to != 0 {
		t.Errorf("no rows: %d to %d", from, to)
	}
}

// TestSort: by the URL, and by the heads.
func TestSort(t *testing.T) {
	for sort, want := range map[string]Sort{"": {By: "size"}, "size": {By: "size"}, "-size": {By: "size", Reverse: true}, "-name": {By: "name", Reverse: true}, "evil": {By: "size"}} {
		if got := By("/ui/x", url.Values{"sort": {sort}}, "size", "name"); got.By != want.By || got.Reverse != want.Reverse {
			t.Errorf("%q: %+v", sort, got)
		}
	}
	s := By("/ui/x", url.Values{"sort": {"name"}, "page": {"3"}}, "size", "name")
	if got := s.Head("", "name", "Name", ""); got != `<th scope="col" class="" aria-sort="ascending"><a href="/ui/x?sort=-name">Name</a></th>` {
		t.Errorf("%s", got)
	}
	if got := s.Head("", "size", "Size", "num"); got != `<th scope="col" class="num"><a href="/ui/x?sort=size">Size</a></th>` {
		t.Errorf("%s", got)
	}
	if s.Order(1) != 1 || (Sort{Reverse: true}).Order(1) != -1 {
		t.Error("the order is another")
	}
}
