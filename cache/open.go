package cache

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/signed"
	"narwharf/cache/state"
	"narwharf/cache/upload"
	"narwharf/cache/upload/adopt"
)

// OpenOptions say where a cache lies and how it takes things in.
type OpenOptions struct {
	DataDir string // the files lie in its folders cache and tmp
	State   state.Store
	Rules   upload.Options // Open sets Local, Counted and Changed
	// Local is the machine's own store, nil if it is not served.
	Local *local.Store
	// Signer is nil where nothing is served.
	Signer *signed.Signer
	Log    *slog.Logger
}

// Stored is a cache on the disk.
type Stored struct {
	Files    *blob.FS
	Uploads  *upload.Store
	Adopter  *adopt.Adopter
	Channels *ChannelAccess

	index      *index.Table
	consistent bool // files and index agree
}

// Open opens files and index. After a kill they may not agree before Recover or
// Rebuild.
func Open(opts OpenOptions) (*Stored, error) {
	files, err := blob.NewFS(filepath.Join(opts.DataDir, "cache"), filepath.Join(opts.DataDir, "tmp"))
	if err == nil {
		err = files.Clean()
	}
	if err != nil {
		return nil, err
	}
	idx, err := index.Open(opts.State)
	if err != nil {
		return nil, err
	}
	adoption := adopt.Options{Log: opts.Log}
	opts.Rules.Counted = idx.Files()
	if opts.Local != nil {
		opts.Rules.Local, adoption.Local = opts.Local, opts.Local
	}
	if opts.Signer != nil {
		opts.Rules.Changed, adoption.Sign = opts.Signer.Forget, opts.Signer.Signatures
	}
	if adoption.Uploads, err = upload.New(files, idx, opts.Rules, opts.Log); err != nil {
		return nil, fmt.Errorf("%s: %w", opts.DataDir, err)
	}
	adopter := adopt.New(adoption)
	return &Stored{
		Files: files, Uploads: adoption.Uploads, Adopter: adopter,
		Channels: &ChannelAccess{Adopter: adopter, Uploads: adoption.Uploads, Local: opts.Local},
		index:    idx, consistent: !idx.Dirty(),
	}, nil
}

// Recover makes files and index agree, if the last process was killed or somebody
// changed the files.
func (s *Stored) Recover() (err error) {
	if !s.consistent {
		_, _, err = s.Uploads.Recover()
		s.consistent = err == nil
	}
	return err
}

// Rebuild makes the index anew; see upload.Store.
func (s *Stored) Rebuild(ctx context.Context, report func(format string, args ...any)) error {
	err := s.Uploads.Rebuild(ctx, report)
	s.consistent = err == nil
	return err
}

// Close tells the next start that files and index agree, if they do.
func (s *Stored) Close() error {
	if !s.consistent || s.Uploads.NeedsRecovery() {
		return nil
	}
	n := s.Uploads.Counts()
	return s.index.Close(index.Files{Count: n.NarFiles, Size: n.NarBytes})
}
