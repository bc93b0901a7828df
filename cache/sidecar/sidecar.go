// Package sidecar takes in the small files that lie beside NARs and narinfos: build
// logs, debug information, and both forms in which Nix keeps the outputs of
// content-addressed derivations. All are one file each; what differs is the check.
package sidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"narwharf/cache/blob"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/state"
	"narwharf/cache/state/namelock"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// What one file may have, in bytes, its Content-Encoding undone.
const (
	MaxJSON = 1 << 20
	MaxLog  = 512 << 20
)

// Store is where they lie. It is safe for concurrent use.
type Store struct {
	// State takes a file in a transaction, which writes nothing: where it takes no writes, nobody is told that a
	// file is here. nil: nobody is asked.
	State state.Store

	files blob.Store
	locks namelock.Set
}

// New makes a Store of the files of a cache.
func New(files blob.Store) *Store { return &Store{files: files} }

// putJSON stores a JSON file. merge gets what is stored already, nil if nothing,
// and what came, and returns what shall be stored.
func (s *Store) putJSON(name string, sent []byte, merge func(old, sent []byte) ([]byte, error)) error {
	defer s.locks.Lock(name)()
	old, err := blob.ReadFile(s.files, name, MaxJSON)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := merge(old, sent)
	if err != nil || bytes.Equal(old, text) {
		return err
	}
	out, err := blob.Prepare(s.files, name, text)
	if err != nil {
		return err
	}
	defer out.Abort()
	return s.commit(out)
}

// commit makes a file visible.
func (s *Store) commit(out blob.Writer) error {
	if err := out.Prepare(); err != nil {
		return err
	}
	if s.State != nil {
		if err := s.State.Update(context.Background(), nil, func(state.Tx) error { return out.Publish() }); err != nil {
			return err
		}
	}
	return out.Commit()
}

// LogName is the file of a derivation's build log.
func LogName(drv string) string { return "log/" + drv }

// PutLog stores a build log of size bytes (-1: unknown); that of the latest build
// stays. Logs can be large, so this one is not held in memory.
func (s *Store) PutLog(drv string, text io.Reader, size int64) error {
	out, err := s.files.Create(LogName(drv), size)
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := io.Copy(out, text); err != nil {
		return err
	}
	defer s.locks.Lock(LogName(drv))()
	return s.commit(out)
}

// DebuginfoName is the one file for both forms of the URL; Nix writes
// <build id>.debug and readers ask for either.
func DebuginfoName(id string) string {
	return "debuginfo/" + strings.TrimSuffix(id, ".debug") + ".debug"
}

// PutDebuginfo stores where the debug information of a build id lies: a member of
// a NAR of this cache. The latest stays: any NAR with it will do.
func (s *Store) PutDebuginfo(id string, text []byte) error {
	return s.putJSON(DebuginfoName(id), text, func(_, sent []byte) ([]byte, error) {
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

// RealisationName is the file of an output, as Nix up to 2.34 calls it.
func RealisationName(id string) string { return "realisations/" + id + ".doi" }

// PutRealisation stores where an output of a content-addressed derivation is.
func (s *Store) PutRealisation(id string, text []byte) error {
	return s.putJSON(RealisationName(id), text, func(old, sent []byte) ([]byte, error) {
		fields, err := parseTrace(sent)
		if err != nil {
			return nil, err
		}
		var claimed string
		if err := json.Unmarshal(fields["id"], &claimed); err != nil || claimed != id {
			return nil, refusal.New(refusal.Content, "the realisation is for %s but was sent as %s", clip.Text(claimed, 100), id)
		}
		return mergeTrace(old, fields)
	})
}

// BuildTraceName is the same for Nix 2.35 and later.
func BuildTraceName(key string) string { return "build-trace-v2/" + key + ".doi" }

// PutBuildTrace stores where an output of a content-addressed derivation is.
func (s *Store) PutBuildTrace(key string, text []byte) error {
	return s.putJSON(BuildTraceName(key), text, func(old, sent []byte) ([]byte, error) {
		fields, err := parseTrace(sent)
		if err != nil {
			return nil, err
		}
		return mergeTrace(old, fields)
	})
}

// maxSignatures bounds the signatures that an output collects.
const maxSignatures = 16

// A trace is a JSON object whose fields we keep as they came, since later
// versions of Nix add some; outPath and signatures are understood.
type trace map[string]json.RawMessage

func parseTrace(text []byte) (trace, error) {
	var t trace
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, refusal.New(refusal.Content, "not a JSON object: %v", err)
	}
	out := t.outPath()
	if _, err := narinfo.ParseBase(out); err != nil {
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
func mergeTrace(oldText []byte, sent trace) ([]byte, error) {
	var sigs json.RawMessage
	if oldText != nil {
		old, err := parseTrace(oldText)
		if err != nil {
			return nil, errors.New(err.Error()) // our own file: no refusal
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
	if len(text) > MaxJSON {
		return nil, refusal.New(refusal.TooLarge, "with what is here already this is larger than the %s that this cache takes", refusal.Size(MaxJSON))
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
	if len(all) > maxSignatures {
		return nil, refusal.New(refusal.Signature, "more than %d signatures", maxSignatures)
	}
	slices.Sort(all)
	return json.RawMessage("[" + strings.Join(all, ",") + "]"), nil
}

// Frozen is a *state.Frozen where the state takes no writes, so that an upload is refused before it is sent.
func (s *Store) Frozen(ctx context.Context) error {
	if st, can := s.State.(state.Movable); can {
		frozen, err := st.Frozen(ctx)
		if err == nil && frozen != nil {
			err = frozen
		}
		return err
	}
	return nil
}
