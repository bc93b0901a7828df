package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"narwharf/cache/blob"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/upload"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// The small named files: logs, debug information, and both forms in which Nix
// keeps the outputs of content-addressed derivations. All are one file each,
// read and written by the two functions below; what differs is the check.

const (
	maxNamed = 1 << 20   // bytes of a JSON file
	maxLog   = 512 << 20 // bytes of a build log, unpacked
)

// sendBlob sends a text file, packed if the client likes that.
func (s *Server) sendBlob(w *response, req *http.Request, f *blob.File, contentType string) error {
	etag := strconv.FormatInt(f.ModTime.UnixNano(), 36) + "-" + strconv.FormatInt(f.Size, 36)
	return sendText(w, req, f.Content, f.Size, contentType, etag)
}

// sendText sends size bytes of text. etag is without quotes; what is packed has
// it as a weak one.
func sendText(w *response, req *http.Request, content io.ReadSeeker, size int64, contentType, etag string) error {
	h := w.Header()
	textHeader(h, contentType)
	// HTTP/1.0 has no chunks: a packed text that broke off would look whole.
	if size >= 1024 && req.Header.Get("Range") == "" && req.ProtoAtLeast(1, 1) {
		if enc := encodingFor(req); enc != "" {
			h.Set("Etag", `W/"`+etag+`"`)
			return sendPacked(w, req, content, size, enc)
		}
	}
	h.Set("Etag", `"`+etag+`"`)
	return serveContent(w, req, content, size)
}

func textHeader(h http.Header, contentType string) {
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
}

// encodingFor is the encoding that the client likes of those that we make.
func encodingFor(req *http.Request) string {
	for _, enc := range []string{"zstd", "gzip"} {
		if accepts(req, enc) {
			return enc
		}
	}
	return ""
}

// sendPacked packs while sending; size is -1 if it is not known. A failure after
// the first byte breaks the connection off, so that it is never taken for the
// end of the text.
func sendPacked(w *response, req *http.Request, content io.Reader, size int64, encoding string) error {
	h := w.Header()
	if noneMatch(req, h.Get("Etag")) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Encoding", encoding)
	if req.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	var z io.WriteCloser
	if encoding == "zstd" {
		enc, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			return err
		}
		z = enc
	} else {
		z = gzip.NewWriter(w)
	}
	n, err := io.Copy(z, content)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (s *Server) getNamed(w *response, req *http.Request, name, contentType string) error {
	f, err := s.uploads.Files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.sendBlob(w, req, f, contentType)
}

// putNamed stores a JSON file. merge gets what is stored already, nil if
// nothing, and what came, and returns what shall be stored.
func (s *Server) putNamed(w *response, req *http.Request, name string, merge func(old, sent []byte) ([]byte, error)) error {
	text, err := smallBody(req, maxNamed, "the file in "+path.Dir(name), refusal.Content)
	if err != nil {
		return err
	}
	defer s.locks.Lock(name)()
	old, err := blob.ReadFile(s.uploads.Files, name, maxNamed)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text, err = merge(old, text); err != nil {
		return err
	}
	if !bytes.Equal(old, text) {
		if err := blob.WriteFile(s.uploads.Files, name, text); err != nil {
			return err
		}
	}
	return stored(w)
}

// ---- debug information

// debugName gives the one name under which both forms of the URL are kept;
// Nix writes <build id>.debug and readers ask for either.
func debugName(id string) string {
	return "debuginfo/" + strings.TrimSuffix(id, ".debug") + ".debug"
}

func (s *Server) getDebuginfo(w *response, req *http.Request, id string) error {
	return s.getNamed(w, req, debugName(id), "application/json")
}

// putDebuginfo stores where the debug information of a build id lies: a
// member of a NAR of this cache. The latest stays: any NAR with it will do.
func (s *Server) putDebuginfo(w *response, req *http.Request, id string) error {
	return s.putNamed(w, req, debugName(id), func(_, sent []byte) ([]byte, error) {
		var d struct{ Archive, Member string }
		if err := json.Unmarshal(sent, &d); err != nil {
			return nil, refusal.New(refusal.Content, "debuginfo is not JSON: %v", err)
		}
		file, ok := strings.CutPrefix(d.Archive, "../nar/")
		if !ok || !narfile.Grammar.MatchString(file) || d.Member == "" || path.IsAbs(d.Member) || path.Clean(d.Member) != d.Member || strings.HasPrefix(d.Member, "..") {
			return nil, refusal.New(refusal.Content, `debuginfo is not of the form {"archive":"../nar/<file>","member":"<path in it>"}`)
		}
		return sent, nil
	})
}

// ---- realisations and build traces

func (s *Server) getRealisation(w *response, req *http.Request, id string) error {
	return s.getNamed(w, req, "realisations/"+id+".doi", "application/json")
}

func (s *Server) putRealisation(w *response, req *http.Request, id string) error {
	return s.putNamed(w, req, "realisations/"+id+".doi", func(old, sent []byte) ([]byte, error) {
		fields, err := parseTrace(sent)
		if err != nil {
			return nil, err
		}
		var claimed string
		if err := json.Unmarshal(fields["id"], &claimed); err != nil || claimed != id {
			return nil, refusal.New(refusal.Content, "the realisation is for %s but was sent as %s", clip.Text(claimed, 100), id)
		}
		return s.mergeTrace(old, fields)
	})
}

func (s *Server) getBuildTrace(w *response, req *http.Request, key string) error {
	return s.getNamed(w, req, "build-trace-v2/"+key+".doi", "application/json")
}

func (s *Server) putBuildTrace(w *response, req *http.Request, key string) error {
	return s.putNamed(w, req, "build-trace-v2/"+key+".doi", func(old, sent []byte) ([]byte, error) {
		fields, err := parseTrace(sent)
		if err != nil {
			return nil, err
		}
		return s.mergeTrace(old, fields)
	})
}

// A trace is a JSON object whose fields we keep as they came, since later
// versions of Nix add some; outPath and signatures are understood.
type trace map[string]json.RawMessage

func parseTrace(text []byte) (trace, error) {
	var t trace
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, refusal.New(refusal.Content, "not a JSON object: %v", err)
	}
	if out := t.outPath(); !drvGrammar.MatchString(out) {
		return nil, refusal.New(refusal.Content, "outPath %q is not the base name of a store path", clip.Text(out, 100))
	}
	return t, nil
}

// outPath is the output's base name, "" if there is none.
func (t trace) outPath() (out string) {
	_ = json.Unmarshal(t["outPath"], &out) // "" then
	return out
}

// mergeTrace joins what is stored and what was sent. As in Nix's own local
// store (LocalStore::registerDrvOutput) one output has one path here: another
// is refused, and signatures of the same are united.
func (s *Server) mergeTrace(oldText []byte, sent trace) ([]byte, error) {
	var sigs json.RawMessage
	if oldText != nil {
		old, err := parseTrace(oldText)
		if err != nil {
			return nil, damaged(err)
		}
		if was, is := old.outPath(), sent.outPath(); was != is {
			return nil, refusal.New(refusal.Conflict, "this output was uploaded as %s, now it is %s; the first stays: rebuild with this cache as substituter", was, is)
		}
		for k, v := range old {
			if _, ok := sent[k]; k != "signatures" && (!ok || k == "dependentRealisations" && len(v) > len(sent[k])) {
				sent[k] = v
			}
		}
		sigs = old["signatures"]
	}
	sigs, err := uniteSignatures(sigs, sent["signatures"])
	if err != nil {
		return nil, err
	}
	if sigs != nil {
		sent["signatures"] = sigs
	}
	text, err := json.Marshal(sent)
	if err != nil {
		return nil, err
	}
	if len(text) > maxNamed {
		return nil, refusal.New(refusal.TooLarge, "with what is here already this is larger than the %s that this cache takes", refusal.Size(maxNamed))
	}
	return text, nil
}

// checkTraceSignature refuses what would make a client refuse the whole file.
func checkTraceSignature(item json.RawMessage) error {
	var text string
	if json.Unmarshal(item, &text) != nil {
		var parts struct{ KeyName, Sig string }
		if err := json.Unmarshal(item, &parts); err != nil {
			return refusal.New(refusal.Signature, `signatures has something that is neither "name:base64" nor {"keyName","sig"}`)
		}
		text = parts.KeyName + ":" + parts.Sig
	}
	if _, _, err := signing.ParseSignature(text); err != nil {
		return refusal.New(refusal.Signature, "signatures: %v", err)
	}
	return nil
}

func uniteSignatures(a, b json.RawMessage) (json.RawMessage, error) {
	if a == nil && b == nil {
		return nil, nil
	}
	var all []string
	for _, raw := range []json.RawMessage{a, b} {
		if raw == nil {
			continue
		}
		var list []json.RawMessage // strings up to 2.34, objects from 2.35 on
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, refusal.New(refusal.Content, "signatures is not a list: %v", err)
		}
		for _, item := range list {
			if err := checkTraceSignature(item); err != nil {
				return nil, err
			}
			var compact bytes.Buffer
			if err := json.Compact(&compact, item); err != nil {
				return nil, refusal.New(refusal.Content, "signatures: %v", err)
			}
			if !slices.Contains(all, compact.String()) {
				all = append(all, compact.String())
			}
		}
	}
	if len(all) == 0 {
		return json.RawMessage("[]"), nil
	}
	if len(all) > upload.MaxSignatures {
		return nil, refusal.New(refusal.Signature, "more than %d signatures", upload.MaxSignatures)
	}
	slices.Sort(all)
	return json.RawMessage("[" + strings.Join(all, ",") + "]"), nil
}
