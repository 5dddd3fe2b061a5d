// Package digest makes SHA-256 of files, with several files at a time.
package digest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// step is how much is read and hashed at a time.
const step = 1 << 20

// Run is hashing that goes on beside other work.
type Run struct {
	stop context.CancelFunc
	done chan struct{}
	sums []report.File
	errs []error
}

// Bytes is how much there is to hash, as far as that is known.
func Bytes(files []source.Source) (n int64) {
	for _, one := range files {
		if info, err := one.Stat(one.Path); err == nil {
			n += info.Size()
		}
	}
	return n
}

// Start begins to hash files, at most that many at a time. The result has them in the
// same order.
func Start(ctx context.Context, files []source.Source, atOnce int) *Run {
	ctx, stop := context.WithCancel(ctx)
	r := &Run{stop: stop, done: make(chan struct{}), sums: make([]report.File, len(files)), errs: make([]error, len(files))}
	next := make(chan int)
	var all sync.WaitGroup
	for range min(max(atOnce, 1), len(files)) {
		all.Go(func() {
			buffer := make([]byte, step)
			for i := range next {
				r.sums[i], r.errs[i] = file(ctx, files[i], buffer)
			}
		})
	}
	go func() {
		defer close(r.done)
		for i := range files {
			next <- i
		}
		close(next)
		all.Wait()
	}()
	return r
}

// Wait returns the hashes once all are made, or the error of the first file that has one.
func (r *Run) Wait() ([]report.File, error) {
	<-r.done
	return r.sums, errors.Join(r.errs...)
}

// Stop ends the hashing early. It does nothing after Wait.
func (r *Run) Stop() {
	r.stop()
	<-r.done
}

// file hashes one file from its beginning to its end.
func file(ctx context.Context, from source.Source, buffer []byte) (report.File, error) {
	f, err := from.Open(from.Path)
	if err != nil {
		return report.File{}, err
	}
	defer f.Close()
	h := sha256.New()
	n := f.Info.Size()
	for off := int64(0); off < n; {
		if err := ctx.Err(); err != nil {
			return report.File{}, err
		}
		some := buffer[:min(n-off, step)]
		if got, err := f.ReadAt(some, off); got < len(some) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return report.File{}, fmt.Errorf("%s: %w", from.Path, err)
		}
		h.Write(some)
		off += int64(len(some))
		watch.Of(ctx).Did(int64(len(some)))
	}
	return report.File{Path: from.Path, Bytes: n, SHA256: Text(h)}, nil
}

// Text is a hash as text has it.
func Text(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }
