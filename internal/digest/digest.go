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
	stop  context.CancelFunc
	done  chan struct{}
	wait  func() ([]report.File, error)
	sums  []report.File
	errs  []error
	ctx   context.Context
	with  []source.Source // those that are hashed while others read them
	apart []source.Source // all others
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

// Bytes is how much is read for the hashes alone, as far as that is known.
func (r *Run) Bytes() int64 { return Bytes(r.apart) }

// Start begins to hash files, at most that many at a time. The result has them in the
// same order.
func Start(ctx context.Context, files []source.Source, atOnce int) *Run {
	return start(ctx, files, make([]source.Source, len(files)), atOnce)
}

// Along is Start for files that others are about to read. Those of a store are hashed as
// they come; Wait then reads what did not come, or not in order.
func Along(ctx context.Context, files []source.Source, atOnce int) *Run {
	with := make([]source.Source, len(files))
	for i, one := range files {
		if tree, ok := one.Tree.(source.Summing); ok {
			tree.SumAll()
			with[i] = one
		}
	}
	return start(ctx, files, with, atOnce)
}

func start(ctx context.Context, files, with []source.Source, atOnce int) *Run {
	ctx, stop := context.WithCancel(ctx)
	n := len(files)
	r := &Run{stop: stop, done: make(chan struct{}), sums: make([]report.File, n), errs: make([]error, n), ctx: ctx, with: with}
	r.wait = sync.OnceValues(r.rest)
	for i, one := range files {
		if with[i].Tree == nil {
			r.apart = append(r.apart, one)
		}
	}
	next := make(chan int)
	var all sync.WaitGroup
	for range min(max(atOnce, 1), n) {
		all.Go(func() {
			var buffer []byte
			for i := range next {
				if buffer == nil {
					buffer = make([]byte, step)
				}
				r.sums[i], r.errs[i] = file(ctx, files[i], buffer)
			}
		})
	}
	go func() {
		defer close(r.done)
		for i := range files {
			if with[i].Tree == nil {
				next <- i
			}
		}
		close(next)
		all.Wait()
	}()
	return r
}

// requests is how many files of stores are asked for at a time, most of them small.
const requests = 4

// Wait returns the hashes once all are made, or the error of the first file that has one.
func (r *Run) Wait() ([]report.File, error) { return r.wait() }

func (r *Run) rest() ([]report.File, error) {
	<-r.done
	places := make(chan int)
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			for i := range places {
				r.sums[i], r.errs[i] = r.summed(r.with[i])
			}
		})
	}
	for i := range r.with {
		if r.with[i].Tree != nil {
			places <- i
		}
	}
	close(places)
	all.Wait()
	return r.sums, errors.Join(r.errs...)
}

// summed is a file of a store.
func (r *Run) summed(one source.Source) (report.File, error) {
	sum, info, err := one.Tree.(source.Summing).Sum(r.ctx, one.Path)
	if err != nil {
		return report.File{}, err
	}
	return report.File{Path: one.Path, Bytes: info.Size(), SHA256: sum}, nil
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
