package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io/fs"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// A file of a store is hashed as its blocks come, where the store states its sha256 (by a
// method SHA256() string), or where someone wants to know it. Blocks that come before
// their turn stay in memory until then; where that is too much, the sum ends there, and
// what follows is hashed when it is read again, if it is.

// sum is the sha256 of the blocks of a file, as far as they have come in order.
type sum struct {
	hash    hash.Hash
	next    int64            // the block that is hashed next
	waiting map[int64]*block // read, and to be hashed
	busy    bool             // someone is hashing
	bytes   int64            // that are hashed
	out     bool             // given up: no block is held for it any more
}

// hashes reports whether a block is to be hashed.
func (f *inBlocks) hashes(index int64) bool {
	if f.stated == "" && !f.whole {
		return false
	}
	one := f.sum()
	return index == one.next || index > one.next && !one.out
}

// sum is that of the file.
func (f *inBlocks) sum() *sum {
	one := f.sums[f.path]
	if one == nil {
		one = &sum{hash: sha256.New(), waiting: map[int64]*block{}}
		f.sums[f.path] = one
	}
	return one
}

// giveUp ends the sum of a file where it is.
func (b *blocks) giveUp(path string) {
	s := b.sums[path]
	s.out = true
	for _, one := range s.waiting {
		one.pending = false
	}
	clear(s.waiting)
}

// arrived notes that a block was read, and whether it waits to be hashed.
func (f *inBlocks) arrived(b *block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b.done = true
	if s := f.sums[f.path]; b.pending {
		if b.pending = !s.out || b.index == s.next; b.pending {
			s.waiting[b.index] = b
		}
	}
}

// sumUp hashes all blocks of a file whose turn it is, without the lock. Where another does
// so it waits, or leaves it to that one.
func (b *blocks) sumUp(path string, wait bool) {
	s := b.sums[path]
	for s != nil && (s.busy || s.waiting[s.next] != nil) {
		if s.busy && !wait {
			return
		}
		if s.busy {
			b.summed.Wait()
			continue
		}
		one := s.waiting[s.next]
		delete(s.waiting, s.next)
		s.busy = true
		one.users++ // so that it stays
		b.mu.Unlock()
		s.hash.Write(one.data)
		b.mu.Lock()
		one.users--
		one.pending, s.busy = false, false
		s.next++
		s.bytes += int64(len(one.data))
		b.trim()
		b.summed.Broadcast()
	}
}

// asStated returns a [usage.ErrSource] if all of a file was read and is not what the store
// states.
func (b *blocks) asStated(path string, size int64, stated string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sumUp(path, true)
	one := b.sums[path]
	if stated == "" || one == nil || one.bytes != size {
		return nil
	}
	if got := hex.EncodeToString(one.hash.Sum(nil)); got != stated {
		return usage.Source(fmt.Errorf("%s: came with sha256 %s, and %s is stated: run again", path, got, stated))
	}
	return nil
}

// Summing is a tree that hashes files while they are read.
type Summing interface {
	// SumAll has all files hashed that are read from now on.
	SumAll()
	// Sum returns the sha256 of a file and what is known of it. It reads what was not read
	// yet, or not in order.
	Sum(ctx context.Context, path string) (string, fs.FileInfo, error)
}

// SumAll has all files hashed, not those alone whose sum is stated.
func (t *listed) SumAll() {
	t.blocks.mu.Lock()
	defer t.blocks.mu.Unlock()
	t.blocks.whole = true
}

// Sum reads on from where the file was hashed to, and is an error where the store states
// something else.
func (t *listed) Sum(ctx context.Context, path string) (string, fs.FileInfo, error) {
	f, err := t.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	if err := f.Sections.(*inBlocks).readOn(ctx); err != nil {
		return "", nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := t.blocks.asStated(path, f.Info.Size(), f.Sections.(*inBlocks).stated); err != nil {
		return "", nil, err
	}
	t.blocks.mu.Lock()
	defer t.blocks.mu.Unlock()
	return hex.EncodeToString(f.Sections.(*inBlocks).sum().hash.Sum(nil)), f.Info, nil
}

// readOn reads the blocks that are not hashed, in their order.
func (f *inBlocks) readOn(ctx context.Context) error {
	for {
		index := f.unsummed()
		if index*blockBytes >= f.size {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b := f.begin(index)
		err := b.err
		f.release(b, 0, len(b.data))
		if err != nil {
			return err
		}
	}
}

// unsummed returns the first block that is not hashed, and sees that it will be.
func (f *inBlocks) unsummed() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sum()
	s.out = false
	for {
		f.sumUp(f.path, true)
		i := f.find(place{f.path, s.next})
		if i < 0 || f.recent[i].pending {
			return s.next
		}
		if f.recent[i].pending = true; !f.recent[i].done {
			return s.next
		}
		s.waiting[s.next] = f.recent[i]
	}
}
