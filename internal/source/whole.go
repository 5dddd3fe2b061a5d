package source

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// A store may state the sha256 of a file, by a method SHA256() string. A file that is
// read whole, more or less from front to back, is held against it.

// mostHeld is how many blocks wait for one before them, so that all of them are hashed in
// order, at most. A file whose blocks come in another order is not held against anything.
const mostHeld = 16

// sum is the sha256 of the blocks of a file, as far as they have come.
type sum struct {
	hash  hash.Hash
	next  int64            // the block that is hashed next
	held  map[int64][]byte // blocks after it
	bytes int64            // that are hashed
	out   bool             // given up
}

// add hashes a block, or holds it until its turn comes. Blocks that come again change
// nothing.
func (s *sum) add(index int64, data []byte) {
	if s.out || index < s.next || s.held[index] != nil {
		return
	}
	if index > s.next {
		if s.out = len(s.held) >= mostHeld; s.out {
			s.held = nil
			return
		}
		s.held[index] = append([]byte(nil), data...)
		return
	}
	for data != nil {
		s.hash.Write(data)
		s.bytes += int64(len(data))
		delete(s.held, s.next)
		s.next++
		data = s.held[s.next]
	}
}

// hashed adds a block to the sum of its file, where the store states one.
func (f *inBlocks) hashed(b *block) {
	if f.stated == "" {
		return
	}
	f.summing.Lock()
	defer f.summing.Unlock()
	one := f.sums[f.path]
	if one == nil {
		if f.sums == nil {
			f.sums = map[string]*sum{}
		}
		one = &sum{hash: sha256.New(), held: map[int64][]byte{}}
		f.sums[f.path] = one
	}
	one.add(b.index, b.data)
}

// asStated returns a [usage.ErrSource] if all of a file was read and is not what the store
// states.
func (b *blocks) asStated(path string, size int64, stated string) error {
	b.summing.Lock()
	defer b.summing.Unlock()
	one := b.sums[path]
	if one == nil || one.out || one.bytes != size {
		return nil
	}
	if got := hex.EncodeToString(one.hash.Sum(nil)); got != stated {
		return usage.Source(fmt.Errorf("%s: came with sha256 %s, and %s is stated: run again", path, got, stated))
	}
	return nil
}
