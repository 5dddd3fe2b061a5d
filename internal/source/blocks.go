package source

import (
	"errors"
	"io"
	"slices"
	"sync"
)

const (
	// blockBytes is how much of a store's file is read at a time: the latency of a
	// request equals the transfer of some megabytes.
	blockBytes = 4 << 20
	// mostBlocks bounds the number of blocks in memory, unless the store says otherwise:
	// enough for rows that several tiles need to be read only once.
	mostBlocks = 12
)

// BlockBytes is how much of a store's file is in memory at a time for each block.
const BlockBytes = blockBytes

// blocks caches the parts of a store's files that were read last, and reads on where a
// file is read from front to back: a store far away gives one range slowly, and several at
// once faster.
type blocks struct {
	most   int // how many blocks stay in memory
	ahead  int // how many of these are read before they are asked for, 0 for none
	mu     sync.Mutex
	recent []*block // the latest use last
	taken  int      // how many blocks were read, or begun to be

	summing sync.Mutex
	sums    map[string]*sum // by paths
}

// block is a part of a file; data and err are set once read has run.
type block struct {
	path  string
	index int64
	users int
	fresh bool // nobody has asked for it yet
	begun int  // how many blocks had been taken before it
	read  sync.Once
	data  []byte
	err   error
}

// inBlocks reads a file in whole blocks.
type inBlocks struct {
	*blocks
	path   string
	file   io.ReaderAt
	size   int64
	stated string // its sha256, "" where nobody states it
}

// ReadAt fills p from the cached blocks, reading those that are missing.
func (f *inBlocks) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at >= f.size {
			return n, io.EOF
		}
		some, err := f.readBlock(p[n:], at)
		if n += some; err != nil {
			return n, err
		}
	}
	return n, nil
}

// readBlock copies from the block that holds off, up to its end.
func (f *inBlocks) readBlock(p []byte, off int64) (int, error) {
	b, next := f.use(f.path, off/blockBytes, f.size)
	defer f.release(b)
	for _, one := range next {
		go func() {
			defer f.release(one)
			f.fill(one)
		}()
	}
	f.fill(b)
	if b.err != nil {
		return 0, b.err
	}
	return copy(p, b.data[off%blockBytes:]), nil
}

// fill reads a block unless it has been read.
func (f *inBlocks) fill(b *block) {
	b.read.Do(func() {
		if b.data, b.err = f.fetch(b.data, b.index*blockBytes); b.err == nil {
			f.hashed(b)
		}
	})
}

func (f *inBlocks) fetch(data []byte, off int64) ([]byte, error) {
	if data == nil {
		data = make([]byte, min(blockBytes, f.size-off))
	}
	data = data[:min(blockBytes, f.size-off, int64(cap(data)))]
	n, err := f.file.ReadAt(data, off)
	switch {
	case n == len(data):
		return data, nil
	case err == nil || errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

// use returns a block and, where the one before it was read too, those after it that
// are not on their way yet.
func (b *blocks) use(path string, index, size int64) (one *block, next []*block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one = b.take(path, index)
	one.fresh = false
	if b.ahead == 0 || index > 0 && b.find(path, index-1) < 0 {
		return one, nil
	}
	fresh := 0
	for _, other := range b.recent {
		if other.fresh = other.fresh && b.taken-other.begun < 2*b.most; other.fresh { // else it was skipped
			fresh++
		}
	}
	for i := index + 1; i <= index+int64(b.ahead) && fresh < b.ahead && i*blockBytes < size; i++ {
		if b.find(path, i) < 0 {
			more := b.take(path, i)
			more.fresh, fresh = true, fresh+1
			next = append(next, more)
		}
	}
	return one, next
}

// find returns the place of a block among those in memory, -1 for none.
func (b *blocks) find(path string, index int64) int {
	return slices.IndexFunc(b.recent, func(one *block) bool { return one.path == path && one.index == index })
}

// take makes a block the one that was used last. If it is not cached, it replaces the one
// that was used longest ago.
func (b *blocks) take(path string, index int64) *block {
	i := b.find(path, index)
	var one *block
	if i >= 0 {
		one = b.recent[i]
	} else {
		one = &block{path: path, index: index, begun: b.taken}
		b.taken++
		if len(b.recent) >= b.most {
			i = slices.IndexFunc(b.recent, func(one *block) bool { return one.users == 0 && !one.fresh })
		}
		if i >= 0 && cap(b.recent[i].data) == blockBytes {
			one.data = b.recent[i].data
		}
	}
	if i >= 0 {
		b.recent = slices.Delete(b.recent, i, i+1)
	}
	one.users++
	b.recent = append(b.recent, one)
	return one
}

// release ends a use. A block that could not be read is dropped, so that the next use
// tries again.
func (b *blocks) release(one *block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one.users--
	if one.err != nil {
		b.recent = slices.DeleteFunc(b.recent, func(other *block) bool { return other == one })
	}
}
