package frame

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/plot"
	"narwharf/narinfo/clip"
)

//go:embed files
var files embed.FS

// words are the functions of templates.
func (f *Frame) words() template.FuncMap {
	return template.FuncMap{
		"base":  func() string { return f.base },
		"seg":   url.PathEscape, // a part of a path
		"time":  stamp,
		"bytes": Bytes,
		"took":  took,
		"line":  func(s string) string { return clip.Line(s, 500) },
		"word":  func(v any) string { return clip.Line(fmt.Sprint(v), 128) },
		"name":  Name,
		"svg":   func(c *plot.Cells) template.HTML { return c.SVG() },
		"n":     count,
		"tone":  Tone,
		"short": func(s string) string { return clip.Line(Short(s), 500) },
		"join":  func(list []string) string { return clip.Line(strings.Join(list, ", "), 1000) },
	}
}

// stamp is a time element, "never" for none; the script adds how long ago it is.
func stamp(t time.Time) template.HTML {
	if t.IsZero() {
		return "never"
	}
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s</time>`, t.Format(time.RFC3339), t.Format("2006-01-02 15:04:05 UTC"))) //nolint:gosec // digits
}

// Bytes is a size for people.
func Bytes(n int64) string {
	const units = "KMGTPE"
	size, unit := float64(n), -1
	for (size >= 1000 || size <= -1000) && unit+1 < len(units) {
		size /= 1024
		unit++
	}
	if unit < 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %ciB", size, units[unit])
}

// took is a duration in milliseconds for people.
func took(ms int64) string {
	switch d := time.Duration(ms) * time.Millisecond; {
	case d < time.Second:
		return fmt.Sprintf("%d ms", ms)
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 90*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
}

// Name is the name in a store path, without hash, folder and what all systems begin with; what is none is a line of itself.
func Name(storePath string) string {
	base := path.Base(storePath)
	if hash, name, ok := strings.Cut(base, "-"); ok && len(hash) == 32 {
		base = strings.TrimPrefix(name, "nixos-system-")
	}
	return clip.Line(base, 200)
}

var storePath = regexp.MustCompile(`/nix/store/[a-z0-9]{32}-([a-zA-Z0-9+._?=-]+)`)

// Short is a text with the names of store paths in place of the paths.
func Short(text string) string {
	return storePath.ReplaceAllStringFunc(text, func(p string) string { return Name(p) })
}

// Tone is the class in which a host's state is shown.
func Tone(s api.State) string {
	switch s {
	case api.OK, api.Testing, api.DryRunDone, api.TestOver:
		return "good"
	case api.Failed, api.Reverted, api.Rejected, api.StageFailed, api.Reverting:
		return "bad"
	case api.Armed, api.Drifted, api.NotInRelease:
		return "warn"
	case api.Idle, "":
		return ""
	}
	return "busy"
}

// count is a number with a word, in the plural if it is not 1.
func count(n int, one string, many ...string) string {
	if n == 1 {
		return "1 " + one
	}
	if len(many) > 0 {
		return fmt.Sprintf("%d %s", n, many[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// URLs of the assets change when they do, so that browsers may keep them.
var styleURL, scriptURL = versioned("style.css"), versioned("page.js")

func read(name string) []byte {
	text, err := files.ReadFile("files/" + name)
	if err != nil {
		panic(err) // it is in the program
	}
	return text
}

func versioned(name string) string {
	sum := sha256.Sum256(read(name))
	return Path + name + "?v=" + base64.RawURLEncoding.EncodeToString(sum[:6])
}

func asset(name, kind string) http.HandlerFunc {
	text := read(name)
	return func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", kind+"; charset=utf-8")
		if req.URL.Query().Has("v") {
			w.Header().Set("Cache-Control", "max-age=31536000, immutable")
		} else {
			w.Header().Set("Cache-Control", "max-age=3600")
		}
		_, _ = w.Write(text) // fails only if the client left
	}
}
