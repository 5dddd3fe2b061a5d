package source

import (
	"errors"
	"io"
	"slices"
	"sync"
)

const (
	// blockBytes is how much of a store's file is read at a time: enough that a request
	// costs little beside its bytes, and so little that those of many requests fit memory.
	blockBytes = 1 << 20
	// mostBlocks bounds the number of blocks in memory, unless the store says otherwise:
	// enough for rows that several tiles need to be read only once.
	mostBlocks = 48
	// keptBlocks is how many blocks stay of those that were read to their end, for a tile
	// that is gone through twice: as many as others may end while the system holds up the
	// worker between the two.
	keptBlocks = 8
)

// BlockBytes is how much of a store's file is in memory at a time for each block.
const BlockBytes = blockBytes

// blocks caches the parts of a store's files that are being read, and reads on where a
// file is read from front to back: a store far away gives one range slowly, and several at
// once faster. What was read to its end is let go, and its memory is used again.
type blocks struct {
	// room says how many blocks may stay in memory, and how many of these are to be read
	// before they are asked for, 0 for none.
	room   func() (most, ahead int)
	mu     sync.Mutex
	summed sync.Cond // that someone has hashed
	recent []*block  // the latest use last
	past   []place   // of blocks that were let go, the latest last
	spare  [][]byte  // memory of blocks that were let go
	taken  int       // how many blocks were read, or begun to be
	shared bool      // others read what one has read to its end

	whole bool            // every file is hashed, not those alone whose sum is stated
	sums  map[string]*sum // by paths
}

func newBlocks(room func() (most, ahead int)) *blocks {
	b := &blocks{room: room, sums: map[string]*sum{}}
	b.summed.L = &b.mu
	return b
}

// place is where a block lies.
type place struct {
	path  string
	index int64
}

// block is a part of a file; data and err are set once read has run.
type block struct {
	place
	users   int
	fresh   bool // nobody has asked for it yet
	pending bool // it is not hashed yet
	done    bool // it is read
	begun   int  // how many blocks had been taken before it
	seen    seen
	read    sync.Once
	data    []byte
	err     error
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
func (f *inBlocks) readBlock(p []byte, off int64) (n int, err error) {
	from := int(off % blockBytes)
	b := f.begin(off / blockBytes)
	defer func() { f.release(b, from, from+n) }()
	if b.err != nil {
		return 0, b.err
	}
	return copy(p, b.data[from:]), nil
}

// begin returns a block that is read, and sees that those after it are on their way.
func (f *inBlocks) begin(index int64) *block {
	b, next := f.use(index)
	for _, one := range next {
		go func() {
			defer f.release(one, 0, 0)
			f.fill(one, false)
		}()
	}
	f.fill(b, true)
	return b
}

// fill reads a block unless it has been read, and hashes what can be; wait says that this
// takes its time where another is at that.
func (f *inBlocks) fill(b *block, wait bool) {
	first := false
	b.read.Do(func() {
		if b.data, b.err = f.fetch(b.data, b.index*blockBytes); b.err == nil {
			f.arrived(b)
			first = true
		}
	})
	if first { // others have it meanwhile
		f.mu.Lock()
		defer f.mu.Unlock()
		f.sumUp(f.path, wait)
	}
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

// use returns a block and, where it is new and the one before it was read too, those after
// it that are not on their way yet.
func (f *inBlocks) use(index int64) (one *block, next []*block) {
	most, ahead := f.room()
	f.mu.Lock()
	defer f.mu.Unlock()
	one, first := f.take(index, most)
	first, one.fresh = first || one.fresh, false
	if !first || ahead == 0 || index > 0 && !f.follows(index) {
		return one, nil
	}
	held := 0
	for _, other := range f.recent {
		other.fresh = other.fresh && f.taken-other.begun < 2*most // else it was skipped
		if other.fresh || other.pending {
			held++
		}
	}
	for i := index + 1; i <= index+int64(ahead) && held < ahead && i*blockBytes < f.size; i++ {
		if at := (place{f.path, i}); f.find(at) < 0 && !slices.Contains(f.past, at) {
			more, _ := f.take(i, most)
			more.fresh, held = true, held+1
			next = append(next, more)
		}
	}
	return one, next
}

// follows reports whether the block before one was read not long ago.
func (f *inBlocks) follows(index int64) bool {
	before := place{f.path, index - 1}
	return f.find(before) >= 0 || slices.Contains(f.past, before)
}

// find returns the index of a block among those in memory, -1 for none.
func (b *blocks) find(at place) int {
	return slices.IndexFunc(b.recent, func(one *block) bool { return one.place == at })
}

// take makes a block the one that was used last; fresh says that it is to be read.
func (f *inBlocks) take(index int64, most int) (one *block, fresh bool) {
	at := place{f.path, index}
	if i := f.find(at); i >= 0 {
		one = f.recent[i]
		f.recent = slices.Delete(f.recent, i, i+1)
	} else {
		if len(f.recent) >= most {
			f.makeRoom()
		}
		one, fresh = &block{place: at, begun: f.taken, data: f.memory(), pending: f.hashes(index)}, true
		if slices.Contains(f.past, at) { // the file is gone through once more from here on
			f.past = slices.DeleteFunc(f.past, func(p place) bool { return p.path == at.path && p.index >= index })
		}
		f.taken++
	}
	one.users++
	f.recent = append(f.recent, one)
	return one, fresh
}

// memory is that of a block that was let go, nil for none.
func (b *blocks) memory() (data []byte) {
	if n := len(b.spare); n > 0 {
		data, b.spare = b.spare[n-1], b.spare[:n-1]
	}
	return data
}

// makeRoom lets the block go that was used longest ago. If it waits for others before it
// to be hashed, those of its file that follow are hashed by reading them again.
func (b *blocks) makeRoom() {
	idle := func(one *block) bool { return one.users == 0 && !one.fresh }
	i := slices.IndexFunc(b.recent, func(one *block) bool { return idle(one) && !one.pending })
	if i < 0 {
		if i = slices.IndexFunc(b.recent, idle); i < 0 {
			return
		}
		b.giveUp(b.recent[i].path)
	}
	b.drop(i)
}

// mostPast bounds how many blocks are known to have been read.
const mostPast = 64

// drop lets go of a block that nobody uses.
func (b *blocks) drop(i int) {
	one := b.recent[i]
	b.recent = slices.Delete(b.recent, i, i+1)
	if cap(one.data) == blockBytes {
		b.spare = append(b.spare, one.data)
	}
	if one.err == nil {
		if len(b.past) == mostPast {
			b.past = slices.Delete(b.past, 0, 1)
		}
		b.past = append(b.past, one.place)
	}
}

// release ends a use, in which a part of the block was read. A block that could not be
// read is dropped, so that the next use tries again.
func (b *blocks) release(one *block, from, to int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one.users--
	one.seen.add(from, to, len(one.data))
	if i := b.find(one.place); one.err != nil && i >= 0 && b.recent[i] == one {
		b.recent = slices.Delete(b.recent, i, i+1)
	}
	b.trim()
}

// trim lets go of blocks that were read to their end, but the latest. Where several read
// the same they stay while there is room.
func (b *blocks) trim() {
	if b.shared {
		return
	}
	kept := 0
	for i := len(b.recent) - 1; i >= 0; i-- {
		if one := b.recent[i]; one.users == 0 && !one.pending && one.seen.all(len(one.data)) {
			if kept++; kept > keptBlocks {
				b.drop(i)
			}
		}
	}
}

// seen is what of a block was read, in pages.
type seen struct {
	pages [blockBytes / page / 64]uint64
	n     int
}

const page = 4096

// add notes that the bytes of a block of that size from from to to were read. A page
// counts by its last byte.
func (s *seen) add(from, to, size int) {
	for p := from / page; p*page < to; p++ {
		last := min((p+1)*page, size) - 1
		if bit := uint64(1) << (p % 64); from <= last && last < to && s.pages[p/64]&bit == 0 {
			s.pages[p/64] |= bit
			s.n++
		}
	}
}

// all reports whether all pages of a block of that size were read.
func (s *seen) all(size int) bool { return size > 0 && s.n == (size+page-1)/page }
