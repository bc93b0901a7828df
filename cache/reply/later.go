package reply

import (
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Later sends the header with the first byte of the body, so that an error
// before that is an answer of its own. Errors are those of the client.
type Later struct {
	*Writer
	code int
}

// NewLater makes one that will answer with a status.
func NewLater(w *Writer, status int) *Later { return &Later{w, status} }

func (w *Later) start() {
	if w.Status == 0 {
		w.WriteHeader(w.code)
	}
}

func (w *Later) Write(p []byte) (int, error) {
	w.start()
	n, err := w.Writer.Write(p)
	return n, OfClient(err)
}

// ReadFrom implements io.ReaderFrom, for sendfile.
func (w *Later) ReadFrom(r io.Reader) (int64, error) {
	w.start()
	n, err := w.Writer.ReadFrom(r)
	return n, OfClient(err)
}

// ErrClient is in a failure of the connection, not of what was to be sent.
var ErrClient = errors.New("send")

// OfClient marks an error of writing a reply. One of sendfile may be of either
// side; a disk's are these.
func OfClient(err error) error {
	for _, disk := range []error{syscall.EIO, syscall.ESTALE, syscall.Errno(117 /* EUCLEAN */), syscall.EBADMSG, syscall.ENODATA, syscall.ENXIO} {
		if errors.Is(err, disk) {
			return err
		}
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrClient, err)
}
