package bodies

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/safetensors"
)

// Sections are parts of bodies, of one file or several, that are written
// together: those that lie side by side in one call, whatever the order in
// which they were added. The zero value is ready, and is used again and again.
type Sections struct {
	list   []section
	joined []byte
	next   int // the tensor that is most likely added next
}

type section struct {
	to   *Writer
	body int   // index of the tensor in the header
	at   int64 // in the file
	data []byte
}

const (
	// mostJoined bounds what is copied together for one call.
	mostJoined = 256 << 10
	// wholeCall is a size from which on a call of its own costs less than a copy.
	wholeCall = 64 << 10
)

// Add puts in what [Writer.WriteSection] would write at once, with the same
// errors. p must stay as it is until Write.
func (s *Sections) Add(w *Writer, t safetensors.Tensor, p []byte, off int64) error {
	body, at, err := w.locate(t, s.next, len(p), off)
	if err == nil {
		s.list, s.next = append(s.list, section{w, body, at, p}), body+1
	}
	return err
}

// Write writes all sections and takes them out. Of the files it is not said in
// which order they are written.
func (s *Sections) Write() error {
	if len(s.list) > 1 {
		slices.SortFunc(s.list, func(a, b section) int {
			return cmp.Or(cmp.Compare(a.to.number, b.to.number), cmp.Compare(a.at, b.at))
		})
	}
	defer func() { s.list = s.list[:0] }()
	for rest := s.list; len(rest) > 0; {
		n := oneCall(rest)
		if err := s.write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// oneCall is how many of the first sections a single call should write.
func oneCall(list []section) int {
	bytes := 0
	for i, next := range list {
		n := len(next.data)
		switch {
		case i == 0 && n >= wholeCall:
			return 1
		case i > 0 && (n >= wholeCall || bytes+n > mostJoined || next.to != list[0].to || next.at != list[0].at+int64(bytes)):
			return i
		}
		bytes += n
	}
	return len(list)
}

// write writes sections that lie side by side.
func (s *Sections) write(list []section) error {
	first := list[0]
	data, whole := adjacent(list)
	if !whole {
		s.joined = s.joined[:0]
		for _, one := range list {
			s.joined = append(s.joined, one.data...)
		}
		data = s.joined
	}
	if _, err := first.to.w.WriteAt(data, first.at); err != nil {
		return fmt.Errorf("write tensor %.200q: %w", first.to.header.Tensors[first.body].Name, err)
	}
	for _, one := range list {
		one.to.written[one.body].Add(int64(len(one.data)))
	}
	return nil
}

// adjacent returns the data of all sections if it lies side by side in memory,
// each within the capacity of what goes before.
func adjacent(list []section) (all []byte, whole bool) {
	all = list[0].data
	for _, next := range list[1:] {
		n := len(all)
		if len(next.data) == 0 {
			continue
		}
		if cap(all)-n < len(next.data) || &all[:n+1][n] != &next.data[0] {
			return nil, false
		}
		all = all[:n+len(next.data)]
	}
	return all, true
}
