package sidecar

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"narwharf/cache/refusal"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

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
