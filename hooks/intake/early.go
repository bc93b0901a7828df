package intake

import (
	"io"

	"narwharf/hooks/api"
)

// maxEarly is how much is read of a report, in bytes, before it says its channel: what may not be
// reported is not read whole. Agents say it in the first few hundred.
const maxEarly = 64 << 10

// early reads the beginning of a report, and the rest once its channel was let through.
type early struct {
	io.Reader
	may    func(channel string) error
	left   int
	passed bool
}

// Read implements io.Reader.
func (e *early) Read(p []byte) (int, error) {
	switch {
	case e.passed:
		return e.Reader.Read(p)
	case e.left == 0:
		return 0, api.Errorf(api.TooLarge, "the report does not say its channel in its first %d bytes", maxEarly)
	}
	n, err := e.Reader.Read(p[:min(len(p), e.left)])
	e.left -= n
	return n, err
}

// channel copies the channel of a report, unless that may not be.
func (c *copier) channel() error {
	b, err := c.next()
	if err == nil && b != '"' {
		err = errSyntax
	}
	if err != nil {
		return err
	}
	name, err := c.text(maxWord)
	if err == nil {
		if err = c.begin.may(name); err != nil {
			c.failed = err
		}
		c.begin.passed = err == nil
	}
	return err
}
