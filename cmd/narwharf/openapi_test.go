package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"narwharf/cache"
	"narwharf/hooks/reply"
)

// openAPI is as much of docs/openapi.json as the tests look at.
type openAPI struct {
	Paths      map[string]*apiPath
	Components struct {
		Responses map[string]apiResponse
	}
}

type apiPath struct {
	Parameters []struct {
		Name   string
		Schema struct{ Pattern string }
	}
	Get, Head, Put *apiOperation
}

type apiOperation struct {
	Scope     string `json:"x-scope"`
	Security  []map[string][]string
	Responses map[string]apiResponse
}

type apiResponse struct {
	Ref     string `json:"$ref"`
	Headers map[string]any
	Content map[string]any
}

func (p *apiPath) operation(method string) *apiOperation {
	return map[string]*apiOperation{"GET": p.Get, "HEAD": p.Head, "PUT": p.Put}[method]
}

// readOpenAPI reads the document with its references to responses resolved.
func readOpenAPI(t *testing.T) *openAPI {
	t.Helper()
	text, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	doc := new(openAPI)
	if err := json.Unmarshal(text, doc); err != nil {
		t.Fatal(err)
	}
	for path, p := range doc.Paths {
		for _, method := range []string{"GET", "HEAD", "PUT"} {
			op := p.operation(method)
			if op == nil {
				continue
			}
			for status, r := range op.Responses {
				if r.Ref == "" {
					continue
				}
				shared, ok := doc.Components.Responses[strings.TrimPrefix(r.Ref, "#/components/responses/")]
				if !ok {
					t.Fatalf("%s %s: %s: nothing at %s", method, path, status, r.Ref)
				}
				op.Responses[status] = shared
			}
		}
	}
	return doc
}

// shape is a path of the document or of the table with its parameters unnamed.
func shape(path string) string {
	return regexp.MustCompile(`\{\w+\}|:\w+|\*`).ReplaceAllString(path, "{}")
}

// route finds what the document has for a row of the table.
func (doc *openAPI) route(t *testing.T, r cache.Route) *apiPath {
	t.Helper()
	for path, p := range doc.Paths {
		if shape(path) == shape(r.Pattern)+r.Suffix {
			return p
		}
	}
	t.Fatalf("docs/openapi.json lacks the route %s (%s%s)", r.Name, r.Pattern, r.Suffix)
	return nil
}

// The document has the URLs of the table and no others, with the same grammar,
// methods and rights.
func TestOpenAPIHasTheRoutes(t *testing.T) {
	doc := readOpenAPI(t)
	shapes := make(map[string]bool)
	for _, r := range cache.Routes {
		shapes[shape(r.Pattern)+r.Suffix] = true
		p := doc.route(t, r)
		var patterns []string
		for _, param := range p.Parameters {
			patterns = append(patterns, strings.TrimSuffix(strings.TrimPrefix(param.Schema.Pattern, "^"), "$"))
		}
		grammar := ""
		if r.Valid != nil {
			grammar = r.Valid.String()
		}
		if joined := "^" + strings.Join(patterns, "/") + "$"; grammar != joined && (grammar != "" || len(patterns) > 0) {
			t.Errorf("%s: the parameters are %s in the document, %s in the table", r.Name, joined, grammar)
		}
		if p.Get == nil || p.Head == nil || (p.Put != nil) != (r.Write != nil) {
			t.Errorf("%s: the methods differ from the table", r.Name)
			continue
		}
		for _, op := range []*apiOperation{p.Get, p.Head} {
			if want := r.Read.String(); op.Scope != want || (len(op.Security) == 0) != r.Read[0].Public {
				t.Errorf("%s: reading needs the scope %q in the document, %q in the table", r.Name, op.Scope, want)
			}
		}
		if r.Write != nil && (p.Put.Scope != r.Write.String() || !slices.EqualFunc(p.Put.Security, []string{"basic", "bearer"}, hasScheme)) {
			t.Errorf("%s: writing needs the scope push", r.Name)
		}
	}
	for path := range doc.Paths {
		if !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, reply.FleetLock) && !shapes[shape(path)] {
			t.Errorf("docs/openapi.json has %s, which is in no table", path)
		}
	}
}

func hasScheme(scheme map[string][]string, name string) bool {
	_, ok := scheme[name]
	return ok && len(scheme) == 1
}
