package stored

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"narwharf/cache/narfile"
)

// A Log is what Nix on this machine kept of a build. It has its text whole, or is read while
// it is unpacked.
type Log struct {
	io.ReadCloser
	Text io.ReadSeeker // nil where it is read
	Size int64         // of the text in bytes, -1 if that is not known
	ETag string        // without quotes
}

// maxHeldLog is the size of logs that are unpacked before they are sent: a client that is slow
// keeps no decoder.
const maxHeldLog = 1 << 20

// LocalLog opens the log of a derivation. sized wants its Size known, which costs reading it twice.
func (c *Cache) LocalLog(ctx context.Context, drv string, sized bool) (l *Log, err error) {
	f, packed, err := c.Local.Log(drv)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	l = &Log{ReadCloser: f, Text: f, Size: st.Size(), ETag: strconv.FormatInt(st.ModTime().UnixNano(), 36) + "-" + strconv.FormatInt(st.Size(), 36)}
	if packed {
		err = c.counted(ctx, func() error { return l.unpack(f, sized) })
	}
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", f.Name(), err)
	}
	return l, nil
}

// unpack makes a log one of what is packed in a file.
func (l *Log) unpack(f *os.File, sized bool) error {
	plain, err := narfile.UnpackStored(bufio.NewReader(f), "bzip2")
	if err != nil {
		return err
	}
	begin, err := io.ReadAll(io.LimitReader(plain, maxHeldLog+1))
	if err != nil || len(begin) <= maxHeldLog {
		plain.Close()
		text := bytes.NewReader(begin)
		l.Text, l.Size = text, text.Size()
		return err
	}
	l.Text, l.Size = nil, -1
	if sized {
		n, err := io.Copy(io.Discard, plain)
		plain.Close()
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err == nil {
			plain, err = narfile.UnpackStored(bufio.NewReader(f), "bzip2")
		}
		if err != nil {
			return err
		}
		l.Size, begin = int64(len(begin))+n, nil
	}
	l.ReadCloser = &unpacking{io.MultiReader(bytes.NewReader(begin), plain), plain, f}
	return nil
}

// unpacking is a text whose file and decoder are closed with it.
type unpacking struct {
	io.Reader
	plain, file io.Closer
}

// Close implements io.Closer.
func (u *unpacking) Close() error {
	u.plain.Close()
	return u.file.Close()
}
