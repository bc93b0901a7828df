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
	"unicode/utf8"

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

// serveTypes are the types that are told; all else is text or bytes.
var serveTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".svg": "image/svg+xml",
	".pdf": "application/pdf", ".json": "application/json",
	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf",
}

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
		w.Source = sourceLocal
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	switch {
	case found.Type == nar.Symlink:
		return s.serveLink(w, info.Path, info.StoreDir, name, folder, found.Target)
	case found.Type == nar.Directory && !folder:
		return redirect(w, "./"+url.PathEscape(path.Base(name))+"/") // "a:b/" alone would be another scheme
	}
	sum := sha256.Sum256([]byte(info.NarHash.String() + "/" + name))
	if reply.NotModified(w, req, `"`+hex.EncodeToString(sum[:12])+`"`) {
		return nil
	}
	if found.Type == nar.Directory {
		return s.serveFolder(w, info, name, entriesOf(found.Node))
	}
	return s.serveFile(w, req, name, found)
}

// entriesOf are the lines of a folder's page.
func entriesOf(folder *nar.Node) []servedEntry {
	list := make([]servedEntry, 0, len(folder.Entries))
	for _, n := range folder.Entries {
		e := servedEntry{Name: n.Name, Href: "./" + url.PathEscape(n.Name)}
		switch n.Type {
		case nar.Directory:
			e.Name, e.Href = e.Name+"/", e.Href+"/"
		case nar.Symlink:
			e.Note = "→ " + n.Target
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
		return redirect(w, strings.Repeat("../", up-1)+"./"+escapePath(rest))
	}
	return redirect(w, strings.Repeat("../", up)+linked.Hash()+"/"+escapePath(rest))
}

func escapePath(p string) string { return (&url.URL{Path: p}).EscapedPath() }

// redirect goes to a relative place: a proxy may have taken a prefix off.
func redirect(w *reply.Writer, to string) error {
	h := w.Header()
	h.Set("Location", to)
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusFound)
	return nil
}

func (s *browser) serveFolder(w *reply.Writer, info *stored.Source, name string, entries []servedEntry) error {
	slices.SortFunc(entries, func(a, b servedEntry) int { return strings.Compare(a.Name, b.Name) })
	var page bytes.Buffer
	if err := servePage.Execute(&page, map[string]any{"Path": info.Path.In(info.StoreDir), "Name": name, "Entries": entries}); err != nil {
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
	start, err := head.Peek(int(min(f.Size, servePeek)))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	h.Set("Content-Type", serveType(name, start))
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

// servePeek is how much of a file is looked at to see what it is.
const servePeek = 512

// serveType is a type that is known to be harmless here.
func serveType(name string, start []byte) string {
	if t := serveTypes[strings.ToLower(path.Ext(name))]; t != "" {
		return t
	}
	if bytes.IndexByte(start, 0) < 0 {
		for cut := range utf8.UTFMax {
			if utf8.Valid(start[:len(start)-cut]) {
				return "text/plain; charset=utf-8"
			}
			if len(start) < servePeek { // else its last character may be there by half
				break
			}
		}
	}
	return "application/octet-stream"
}
