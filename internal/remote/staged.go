package remote

import (
	"cmp"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/report"
)

// partBytes is the size of a part of a file that goes to a store; stores take no smaller
// ones than 5 MiB. Tests have smaller ones.
var partBytes int64 = 16 << 20

const (
	// mostParts is a bit less than the 10 000 that stores take.
	mostParts = 9000
	// mostWaiting bounds how many whole parts wait for their way to the store.
	mostWaiting = 24
)

// partOf is how large the parts of a file are.
func partOf(size int64) int64 {
	const mib = 1 << 20
	part := partBytes
	if least := (size + mostParts - 1) / mostParts; least > part {
		part = (least + mib - 1) / mib * mib
	}
	return min(part, max(size, 1))
}

// staging keeps parts of files on this machine until they are whole and with the store. The
// room of one that has gone is used again.
type staging struct {
	scratch stage.Scratches
	mu      sync.Mutex
	file    *stage.Scratch
	free    map[int64][]int64 // places, by their size
	end     int64
	all     int64 // bytes of the files
	largest int64 // of the files
}

// add counts a file that will come.
func (s *staging) add(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.largest = s.all+size, max(s.largest, size)
}

// take returns room for a part.
func (s *staging) take(size int64) (place int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		if err := s.fits(); err != nil {
			return 0, err
		}
		if s.file, err = s.scratch.New(); err != nil {
			return 0, err
		}
		s.free = map[int64][]int64{}
	}
	if places := s.free[size]; len(places) > 0 {
		s.free[size] = places[:len(places)-1]
		return places[len(places)-1], nil
	}
	place, s.end = s.end, s.end+size
	return place, nil
}

// fits refuses to begin where there is no room for what is underway at a time.
func (s *staging) fits() error {
	dir := os.TempDir()
	needed := min(s.all, 2*s.largest+mostWaiting*partBytes)
	if free := stage.Free(dir); free >= 0 && free < needed {
		return fmt.Errorf("parts on their way take up to %s in %s, where %s are free: make room, or let TMPDIR name another folder",
			report.Size(needed), dir, report.Size(free))
	}
	return nil
}

func (s *staging) give(place, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free[size] = append(s.free[size], place)
}

// at is a part as it was written.
func (s *staging) at(place, size int64) *io.SectionReader {
	return io.NewSectionReader(s.file, place, size)
}

// close removes everything, and says how much room it took at most.
func (s *staging) close() (most int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end, s.scratch.Close()
}

// upload is a file on its way to a store.
type upload struct {
	to    *storeOutput
	name  string
	size  int64
	step  int64
	parts []part

	begin sync.Once
	id    string // of an upload in parts
	began bool
	err   error

	going  sync.WaitGroup // its parts on their way
	mu     sync.Mutex
	sum    hash.Hash // of the bytes from the first on, as far as parts are with the store; nil for none
	summed int       // parts
}

// part is one of a file.
type part struct {
	left  int64  // bytes that are to come
	place int64  // where those that came are, -1 for nowhere
	gone  bool   // to the store
	tag   string // what that calls it
}

func newUpload(to *storeOutput, name string, size, step int64) *upload {
	u := &upload{to: to, name: name, size: size, step: step}
	u.parts = make([]part, max(1, (size+step-1)/step))
	for i := range u.parts {
		u.parts[i] = part{left: u.length(i), place: -1}
	}
	return u
}

// length is how many bytes a part has.
func (u *upload) length(i int) int64 { return min(u.step, u.size-int64(i)*u.step) }

// inParts reports whether it goes to the store before all of the output is there.
func (u *upload) inParts() bool { return len(u.parts) > 1 }

// WriteAt keeps what is written, part by part.
func (u *upload) WriteAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off+int64(len(p)) > u.size {
		return 0, errors.New("writes past the end of " + u.name)
	}
	for n < len(p) {
		i, at := int(off/u.step), off%u.step
		some := p[n:min(len(p), n+int(u.step-at))]
		if err := u.to.write(u, i, some, at); err != nil {
			return n, err
		}
		n, off = n+len(some), off+int64(len(some))
	}
	return n, nil
}

// written makes sure that every byte came.
func (u *upload) written() error {
	for i := range u.parts {
		if u.parts[i].left != 0 {
			return fmt.Errorf("%s: %d bytes were not written", u.name, u.parts[i].left)
		}
	}
	return nil
}

// sent gives the room of a part that is with the store to others. Where the file is summed
// it is kept until those before it are.
func (u *upload) sent(i int, tag string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts[i].tag, u.parts[i].gone = tag, true
	if u.sum == nil {
		u.to.give(u.parts[i].place, u.step)
		return nil
	}
	for u.summed < len(u.parts) && u.parts[u.summed].gone {
		place := u.parts[u.summed].place
		if _, err := io.Copy(u.sum, u.to.at(place, u.length(u.summed))); err != nil {
			return err
		}
		u.to.give(place, u.step)
		u.summed++
	}
	return nil
}

// release gives the room of a file that is no upload in parts to others.
func (u *upload) release() {
	if !u.inParts() && u.parts[0].place >= 0 {
		u.to.give(u.parts[0].place, u.step)
		u.parts[0].place = -1
	}
}

// total is the sum of a file that is summed and written.
func (u *upload) total() ([]byte, error) {
	if !u.inParts() && u.size > 0 {
		if _, err := io.Copy(u.sum, u.to.at(u.parts[0].place, u.size)); err != nil {
			return nil, err
		}
	}
	return u.sum.Sum(nil), nil
}

// rank orders files so that what leads a reader to others comes after them.
func rank(name string) int {
	dir, base := path.Split(name)
	switch {
	case base == pipelineIndex:
		return 4
	case base == "config.json" && dir == "", base == "quantization_config.json" && dir == "":
		return 3
	case base == "config.json", base == "quantization_config.json":
		return 2
	case strings.HasSuffix(base, ".json") && strings.Contains(base, ".safetensors.index."):
		return 1
	}
	return 0
}

func byRank(a, b *upload) int {
	return cmp.Or(cmp.Compare(rank(a.name), rank(b.name)), cmp.Compare(a.name, b.name))
}
