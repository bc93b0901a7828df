package signing

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"narwharf/narinfo"
	"narwharf/signing/ijson"
)

// An Entry says which system one target runs. In a release it is an opaque
// string of bytes, of which this is the meaning.
type Entry struct {
	Target    string `json:"target"` // "*" or exactly what the host calls itself
	StorePath string `json:"store_path"`
	Closure   Digest `json:"closure"` // of the closure manifest
	System    string `json:"system"`  // "x86_64-linux"
	Action    Action `json:"action"`
	Last      bool   `json:"last,omitempty"` // the system may be without an agent, and so the host's last
}

// Everyone is the target of a release that has one system for all.
const Everyone = "*"

// An Action is what a host does with its entry.
type Action string

// The actions. Auto switches, or reboots where a switch is not enough.
const (
	Auto        Action = "auto"
	Switch      Action = "switch"
	Boot        Action = "boot"
	Test        Action = "test"
	DryActivate Action = "dry-activate"
	Reboot      Action = "reboot"
)

// Actions are all of them.
var Actions = []Action{Auto, Switch, Boot, Test, DryActivate, Reboot}

const (
	maxEntry    = 4096 // bytes
	maxStoreDir = 255  // bytes
)

var (
	targetGrammar   = regexp.MustCompile(`^(\*|[a-zA-Z0-9][a-zA-Z0-9._:-]{0,126})$`)
	systemGrammar   = regexp.MustCompile(`^[a-z0-9_]{1,32}-[a-z0-9_]{1,32}$`)
	storeDirGrammar = regexp.MustCompile(`^(/[!-+\--.0-:<-~]+)+$`) // visible ASCII without , / ;
)

// CheckTarget says what is wrong with the name of a target.
func CheckTarget(name string) error {
	if !targetGrammar.MatchString(name) {
		return fmt.Errorf("%q is not a target: a host name, a name like role:web, or *", clipped(name))
	}
	return nil
}

// ParseEntry reads and checks an entry's bytes. Unknown fields are let through
// unless the entry's crit names them.
func ParseEntry(raw []byte) (*Entry, error) {
	if len(raw) > maxEntry {
		return nil, fmt.Errorf("entry: %d bytes, at most %d", len(raw), maxEntry)
	}
	o, err := ijson.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("entry: %w", err)
	}
	r := ijson.Read(o, "target", "store_path", "closure", "system", "action", "last")
	e := &Entry{
		Target: r.String("target"), StorePath: r.String("store_path"), Closure: ijson.Text(r, "closure", ParseDigest),
		System: r.String("system"), Action: Action(r.String("action")),
	}
	if r.Has("last") {
		e.Last = r.Bool("last")
	}
	if r.Err == nil {
		r.Err = e.Check()
	}
	if r.Err != nil {
		return nil, fmt.Errorf("entry of %q: %w", clipped(e.Target), r.Err)
	}
	return e, nil
}

// Check says what is wrong with an entry on its own.
func (e *Entry) Check() error {
	if err := CheckTarget(e.Target); err != nil {
		return err
	}
	if _, err := e.Path(); err != nil {
		return fmt.Errorf("store_path: %w", err)
	}
	if e.Closure.IsZero() {
		return errors.New("closure is missing")
	}
	if !systemGrammar.MatchString(e.System) {
		return fmt.Errorf("system %q is not like x86_64-linux", clipped(e.System))
	}
	if !slices.Contains(Actions, e.Action) {
		return fmt.Errorf("action %q is none of %q", clipped(string(e.Action)), Actions)
	}
	return nil
}

// Path is the base name of the entry's store path.
func (e *Entry) Path() (narinfo.Path, error) {
	dir := e.StoreDir()
	if err := checkStoreDir(dir); err != nil {
		return "", err
	}
	return narinfo.ParsePath(dir, e.StorePath)
}

// StoreDir is the directory of the entry's store path, without a slash at its
// end.
func (e *Entry) StoreDir() string { return storeDirOf(e.StorePath) }

func storeDirOf(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

// checkStoreDir takes an absolute directory in its shortest form. It has none
// of the characters that part the fields of a closure manifest, so that no line
// of one can be read in two ways.
func checkStoreDir(dir string) error {
	ok := len(dir) <= maxStoreDir && storeDirGrammar.MatchString(dir)
	for part := range strings.SplitSeq(dir, "/") {
		ok = ok && part != "." && part != ".."
	}
	if !ok {
		return fmt.Errorf("%q cannot be a store directory: an absolute path in its shortest form, of visible ASCII without ; and ,", clipped(dir))
	}
	return nil
}
