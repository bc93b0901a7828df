// Package counted counts the NAR files of a cache, without reading the folder each time.
package counted

import (
	"sync/atomic"

	"narwharf/cache/blob"
)

// Files is how many NAR files there are, and how many bytes they have. The zero value is ready.
// Where servers share the files each counts what it changes itself, and counts anew with Measure.
type Files struct{ files, bytes atomic.Int64 }

// Measure counts all that are there.
func (c *Files) Measure(files blob.Store) error {
	var n, size int64
	err := files.List("nar", func(st blob.Info) error {
		n, size = n+1, size+st.Size
		return nil
	})
	if err == nil {
		c.Set(n, size)
	}
	return err
}

// Set sets both numbers.
func (c *Files) Set(files, bytes int64) {
	c.files.Store(files)
	c.bytes.Store(bytes)
}

// Add adds to both numbers.
func (c *Files) Add(files, bytes int64) {
	c.files.Add(files)
	c.bytes.Add(bytes)
}

// Get returns both numbers.
func (c *Files) Get() (files, bytes int64) { return c.files.Load(), c.bytes.Load() }
