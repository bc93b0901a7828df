package cache

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"narwharf/cache/meter"
	"narwharf/cache/nar"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/stored"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// One file out of a store path, or the list of a folder, for people. What is
// shown was built by anybody, so it may do nothing: no script, no request but
// for its own images and styles, and an origin of its own (sandbox), so that it
// cannot speak to the rest of this server with the visitor's password.
const (
	serveFilePolicy = "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; font-src 'self'; sandbox"
	servePagePolicy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
)

//go:embed serve.html
var serveText string

var servePage = template.Must(template.New("serve").Parse(serveText))

// browser answers /serve/….
type browser struct{ *parts }

type servedEntry struct {
	Name string // with a slash at the end if it is a folder
	Href string
	Note string // its size, or where it leads
}

// getServe answers /serve/<hash>/<name>.
func (s *browser) getServe(w *reply.Writer, req *http.Request, name string) error {
	hash, name, _ := strings.Cut(name, "/")
	folder := name == "" || strings.HasSuffix(name, "/")
	name = strings.TrimSuffix(name, "/")
	if name != path.Clean("/" + name)[1:] { // which a store path cannot hold
		return fs.ErrNotExist
	}
	info, found, err := s.Cache.File(req.Context(), hash, name)
	if err != nil {
		return err
	}
	if info.Local {
		w.Source = meter.Local
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	switch {
	case found.Type == nar.Symlink:
		return s.serveLink(w, info.Path, info.StoreDir, name, folder, found.Target)
	case found.Type == nar.Directory && !folder:
		return reply.Redirect(w, "./"+url.PathEscape(path.Base(name))+"/") // "a:b/" alone would be another scheme
	}
	after := req.URL.Query().Get("after")
	sum := sha256.Sum256([]byte(info.NarHash.String() + "/" + name + "\x00" + after))
	if reply.NotModified(w, req, `"`+hex.EncodeToString(sum[:12])+`"`) {
		return nil
	}
	if found.Type == nar.Directory {
		part, more := found.Page(after, maxServed)
		return s.serveFolder(w, info, name, entriesOf(part), more)
	}
	return s.serveFile(w, req, name, found)
}

// maxServed is how many lines a page has.
const maxServed = 1000

// entriesOf are the lines of a folder's page.
func entriesOf(part []nar.Node) (list []servedEntry) {
	for _, n := range part {
		e := servedEntry{Name: clip.Line(n.Name, 300), Href: "./" + url.PathEscape(n.Name)}
		switch n.Type {
		case nar.Directory:
			e.Name, e.Href = e.Name+"/", e.Href+"/"
		case nar.Symlink:
			e.Note = "→ " + clip.Line(n.Target, 4<<10)
		default:
			e.Note = refusal.Size(n.Size)
		}
		list = append(list, e)
	}
	return list
}

// serveLink sends the client where a link leads, if that is in a store path: the link's own
// or another, by an absolute name or by a relative one.
func (s *browser) serveLink(w *reply.Writer, p narinfo.Path, storeDir, name string, folder bool, target string) error {
	to := path.Clean(target)
	if !path.IsAbs(to) {
		to = path.Join(p.In(storeDir), path.Dir("/"+name), target)
		if name == "" { // the path itself is the link
			to = path.Join(storeDir, target)
		}
	}
	rest, ok := strings.CutPrefix(to, storeDir+"/")
	base, rest, _ := strings.Cut(rest, "/")
	linked, err := narinfo.ParseBase(base)
	if !ok || err != nil {
		return refusal.New(refusal.Missing, "this is a link to %s, which is not in this cache", clip.Text(strconv.Quote(target), 100))
	}
	up := strings.Count(name, "/") + 1 // steps from here to /serve/
	if folder && name != "" {
		up++
	}
	if linked == p {
		return reply.Redirect(w, strings.Repeat("../", up-1)+"./"+escapePath(rest))
	}
	return reply.Redirect(w, strings.Repeat("../", up)+linked.Hash()+"/"+escapePath(rest))
}

func escapePath(p string) string { return (&url.URL{Path: p}).EscapedPath() }

func (s *browser) serveFolder(w *reply.Writer, info *stored.Source, name string, entries []servedEntry, more string) error {
	slices.SortFunc(entries, func(a, b servedEntry) int { return strings.Compare(a.Name, b.Name) })
	var page bytes.Buffer
	if err := servePage.Execute(&page, map[string]any{"Path": info.Path.In(info.StoreDir), "Name": clip.Line(name, 4<<10), "Entries": entries, "More": more}); err != nil {
		return fmt.Errorf("page of %s: %w", info.Path, err)
	}
	w.Header().Set("Content-Security-Policy", servePagePolicy)
	return reply.Short(w, "text/html; charset=utf-8", page.String())
}

func (s *browser) serveFile(w *reply.Writer, req *http.Request, name string, f *stored.File) error {
	h := w.Header()
	h.Set("Content-Security-Policy", serveFilePolicy)
	in, err := f.Open(req.Context())
	if err != nil {
		return err
	}
	defer in.Close()
	head := bufio.NewReaderSize(in, 1024)
	start, err := head.Peek(int(min(f.Size, reply.TypePeek)))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	h.Set("Content-Type", reply.SafeType(name, start))
	h.Set("Content-Length", strconv.FormatInt(f.Size, 10))
	if req.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if n, err := io.Copy(struct{ io.Writer }{w}, io.LimitReader(head, f.Size)); err != nil || n < f.Size {
		panic(http.ErrAbortHandler)
	}
	return nil
}
