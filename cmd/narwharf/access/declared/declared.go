// Package declared makes tokens of a server be those that a configuration declares: each stands in a
// file of a folder, one that is declared no more is revoked, and one that is declared otherwise is
// revoked and made anew.
//
// It knows its tokens by their ids, from their files and from `.ids` beside them, and touches no
// others: a token that somebody made by hand stays, whatever its name is.
package declared

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/data"
	"narwharf/cmd/narwharf/server/token"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// A Token is what a configuration says of one.
type Token struct {
	Scopes  []string `json:"scopes"`
	Host    string   `json:"host"`
	Expires string   `json:"expires"` // "90d" from when it is made; "": it does not
}

// ids is the file with the id of each token that was made, by its name: it outlives the tokens' own.
const ids = ".ids"

// A folder holds tokens that were declared, and is being made what is declared now.
type folder struct {
	dir   string
	run   data.Job
	by    string // who makes tokens
	words io.Writer
	made  map[string]string // ids by name
	noted string            // made, as it was read
	there map[string]token.Listed
}

// Apply makes the tokens of dir those of want. What it does is written to words, a line for each
// token. A token that cannot be made for its name is somebody's is said there, too, and is no error.
func Apply(run data.Job, dir string, want map[string]Token, by string, words io.Writer) error {
	if err := check(want); err != nil {
		return err
	}
	f := &folder{dir: dir, run: run, by: by, words: words, there: map[string]token.Listed{}}
	if _, err := os.Stat(dir); len(want) == 0 && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := f.read(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(f.made)) {
		if t, declared := want[name]; !declared || !f.is(name, t) {
			if err := f.end(name); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if err := f.make(name, want[name]); err != nil {
			return err
		}
	}
	return nil
}

// check refuses what would be refused half-way.
func check(want map[string]Token) error {
	for name, t := range want {
		if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("token %q: its name is that of a file", name)
		}
		if _, err := scope.ParseSet(t.Scopes); err != nil {
			return fmt.Errorf("token %s: %w", name, err)
		}
		if _, err := t.lasts(); err != nil {
			return fmt.Errorf("token %s: expires: %w", name, err)
		}
	}
	return nil
}

// lasts is for how long it is good, 0 for ever.
func (t Token) lasts() (time.Duration, error) {
	if t.Expires == "" {
		return 0, nil
	}
	return command.ParseAge(t.Expires)
}

// read finds out which tokens were made, and what the server has.
func (f *folder) read() error {
	f.made = map[string]string{}
	text, err := os.ReadFile(filepath.Join(f.dir, ids))
	if err == nil {
		f.noted = string(text)
		err = json.Unmarshal(text, &f.made)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", filepath.Join(f.dir, ids), err)
	}
	files, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	for _, file := range files { // those of before ids were noted
		if strings.HasPrefix(file.Name(), ".") || !file.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(f.dir, file.Name()))
		if err != nil {
			return err
		}
		if id, err := access.ParseSecret(strings.TrimSpace(string(text))); err == nil {
			f.made[file.Name()] = id
		}
	}
	var out bytes.Buffer
	var list []token.Listed
	if err := f.run("token-list", true, &out); err != nil {
		return err
	}
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		return err
	}
	for _, t := range list {
		f.there[t.ID] = t
	}
	return nil
}

// is tells whether the token that was made is what is declared, and its file is there. One that has
// expired, or that somebody revoked, stays as it is: it is not made anew by itself.
func (f *folder) is(name string, want Token) bool {
	if _, err := os.Stat(filepath.Join(f.dir, name)); err != nil {
		return false
	}
	t, known := f.there[f.made[name]]
	if !known { // by a server that has lost it
		return false
	}
	lasts, _ := want.lasts()
	var is time.Duration
	if t.Expires != nil {
		is = t.Expires.Sub(t.Created)
	}
	return slices.Equal(sorted(want.Scopes), sorted(t.Scopes)) && t.Host == want.Host && (is-lasts).Abs() < time.Minute
}

// sorted are scopes in the one order and spelling.
func sorted(scopes []string) (list []string) {
	set, _ := scope.ParseSet(scopes)
	for _, s := range set {
		list = append(list, s.String())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// end revokes a token and removes its file.
func (f *folder) end(name string) error {
	id := f.made[name]
	if t, known := f.there[id]; known && t.State != "revoked" {
		if err := f.run("token-revoke", id, io.Discard); err != nil {
			return fmt.Errorf("revoke the token %s (%s): %w", name, id, err)
		}
		fmt.Fprintf(f.words, "revoked the token %s (%s), which is declared so no more\n", name, id)
	}
	if err := os.Remove(filepath.Join(f.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	delete(f.made, name)
	delete(f.there, id)
	return f.note()
}

// make makes a token that is not there.
func (f *folder) make(name string, t Token) error {
	if _, there := f.made[name]; there {
		return f.note()
	}
	for _, other := range f.there {
		if other.Name == name && other.State == "active" && other.Kind == "" {
			fmt.Fprintf(f.words, "the token %s is not made: there is another of that name, %s, made by %s. Declare another name, or narwharf token revoke %s and start anew\n", name, other.ID, other.By, other.ID)
			return nil
		}
	}
	lasts, err := t.lasts()
	if err != nil {
		return err
	}
	ask := token.New{Name: name, Scopes: t.Scopes, Host: t.Host, By: f.by}
	if lasts != 0 {
		ask.Expires = time.Now().Add(lasts)
	}
	var secret bytes.Buffer
	if err := f.run("token-new", ask, &secret); err != nil {
		return fmt.Errorf("make the token %s: %w", name, err)
	}
	id, err := access.ParseSecret(strings.TrimSpace(secret.String()))
	if err != nil {
		return fmt.Errorf("the token %s %w", name, err)
	}
	f.made[name] = id
	if err := errors.Join(f.note(), durable.WriteFile(filepath.Join(f.dir, name), secret.Bytes(), 0o600)); err != nil {
		return err
	}
	fmt.Fprintf(f.words, "made the token %s (%s): %s\n", name, id, filepath.Join(f.dir, name))
	return nil
}

func (f *folder) note() error {
	text, err := json.Marshal(f.made)
	if err != nil {
		return err
	}
	if text = append(text, '\n'); string(text) == f.noted {
		return nil // also where the disk is full
	}
	f.noted = string(text)
	return durable.WriteFile(filepath.Join(f.dir, ids), text, 0o600)
}
