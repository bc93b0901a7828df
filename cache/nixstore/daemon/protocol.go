package daemon

import (
	"errors"
	"fmt"
	"strings"

	"narwharf/narinfo"
)

// The worker protocol, as far as asking goes: src/libstore/worker-protocol.cc,
// worker-protocol-connection.cc and daemon.cc of Nix. A version is 1.minor, and
// both ends go by the lower of the two minors.
const (
	clientMagic = 0x6e697863
	daemonMagic = 0x6478696f

	major       = 1
	minMinor    = 21
	newestMinor = 38

	opAddTempRoot           = 11
	opAddIndirectRoot       = 12
	opQueryPathInfo         = 26
	opQueryPathFromHashPart = 29

	msgLast          = 0x616c7473 // the answer follows
	msgError         = 0x63787470
	msgNext          = 0x6f6c6d67 // a line of the log
	msgStartActivity = 0x53545254
	msgStopActivity  = 0x53544f50
	msgResult        = 0x52534c54
)

// daemonSaid is an error that the daemon sent: it understood the question.
type daemonSaid struct{ message string }

func (e *daemonSaid) Error() string { return "nix-daemon says: " + e.message }

// hello shakes hands and returns the minor version to go by.
func (x *wire) hello(newest uint64) (minor uint64, err error) {
	x.putNumber(clientMagic)
	x.putNumber(major<<8 | newest)
	x.flush()
	if magic := x.number(); x.err == nil && magic != daemonMagic {
		x.fail(errors.New("it does not speak Nix's worker protocol"))
	}
	version := x.number()
	minor = min(version&0xff, newest)
	if x.err == nil && (version>>8 != major || minor < minMinor) {
		x.fail(fmt.Errorf("it speaks version %d.%d of the worker protocol; 1.%d or a later 1 is needed", version>>8, version&0xff, minMinor))
	}
	if minor >= 38 {
		x.putNumber(0) // features: none
		x.flush()
		x.texts()
	}
	x.putNumber(0) // CPU affinity, obsolete
	x.putNumber(0) // reserve space, obsolete
	x.flush()
	if minor >= 33 {
		x.text() // the daemon's Nix version
	}
	if minor >= 35 {
		x.number() // whether it trusts this user
	}
	x.work(minor)
	return minor, x.err
}

// work reads the daemon's log up to the answer, which it drops, or to an error.
func (x *wire) work(minor uint64) {
	for x.err == nil {
		switch msg := x.number(); msg {
		case msgLast:
			return
		case msgError:
			x.failure(minor)
		case msgNext:
			x.text()
		case msgStartActivity:
			x.number()
			x.number()
			x.number()
			x.text()
			x.values()
			x.number()
		case msgStopActivity:
			x.number()
		case msgResult:
			x.number()
			x.number()
			x.values()
		default:
			x.fail(fmt.Errorf("it sent message %#x, which is not known here", msg))
		}
	}
}

// failure reads an error and makes it that of x: the connection is given up
// after one, though the protocol would go on.
func (x *wire) failure(minor uint64) {
	var message string
	if minor >= 26 {
		x.text()   // "Error"
		x.number() // level
		x.text()   // name, obsolete
		message = x.text()
		x.number() // has a position, always 0
		for n := x.number(); n > 0 && x.err == nil; n-- {
			x.number()
			x.text() // a line of the trace
		}
	} else {
		message = x.text()
		x.number() // exit status
	}
	x.fail(&daemonSaid{plain(message)})
}

// values reads the fields of an activity, numbers and strings.
func (x *wire) values() {
	for n := x.number(); n > 0 && x.err == nil; n-- {
		switch kind := x.number(); kind {
		case 0:
			x.number()
		case 1:
			x.text()
		default:
			x.fail(fmt.Errorf("it sent a field of kind %d, which is not known here", kind))
		}
	}
}

// pathInfo asks for one path.
func (x *wire) pathInfo(minor uint64, storeDir string, p narinfo.Path) (*PathInfo, error) {
	x.putNumber(opQueryPathInfo)
	x.putText(p.In(storeDir))
	x.flush()
	x.work(minor)
	if valid := x.number(); x.err != nil {
		return nil, x.err
	} else if valid == 0 {
		return nil, ErrNotValid
	}
	k := Known{Path: p, Deriver: x.text()}
	k.NarHash = x.text()
	if !strings.ContainsAny(k.NarHash, ":-") {
		k.NarHash = "sha256:" + k.NarHash
	}
	k.References = x.texts()
	k.Registered = int64(x.number())
	k.NarSize = int64(x.number())
	k.Ultimate = x.number() != 0
	k.Sigs = x.texts()
	k.CA = x.text()
	if x.err != nil {
		return nil, x.err
	}
	return k.Info(storeDir)
}

// pathByHash asks for the path whose name starts with hashPart. The daemon
// looks into its database each time.
func (x *wire) pathByHash(minor uint64, storeDir, hashPart string) (narinfo.Path, error) {
	x.putNumber(opQueryPathFromHashPart)
	x.putText(hashPart)
	x.flush()
	x.work(minor)
	full := x.text()
	if x.err != nil {
		return "", x.err
	}
	if full == "" {
		return "", ErrNotValid
	}
	p, err := narinfo.ParsePath(storeDir, full)
	if err != nil {
		err = &RowError{err}
	}
	return p, err
}

// plain is a message without colours and on one line.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == 0x1b && i+1 < len(s) && s[i+1] == '[':
			for i += 2; i < len(s) && (s[i] < '@' || s[i] > '~'); i++ {
			}
		case c < ' ' || c == 0x7f:
			b.WriteByte(' ')
		default:
			b.WriteByte(c)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
