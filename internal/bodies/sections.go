package bodies

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/safetensors"
)

// Sections collects parts of bodies, of one or several files, to write them together.
// Adjacent ones are written in one call, in whatever order they were added. The zero
// value is ready, and is reusable after each Write.
type Sections struct {
	list   []section
	joined []byte
	next   int // index of the tensor that is likely to be added next
}

type section struct {
	to   *Writer
	body int   // index of the tensor in the header
	at   int64 // offset in the file
	data []byte
}

const (
	// mostJoined is the most bytes that are copied together for one call.
	mostJoined = 256 << 10
	// wholeCall is the size from which a call of its own costs less than copying.
	wholeCall = 64 << 10
)

// Add adds a section for Write to write. It returns the same errors as
// [Writer.WriteSection]. p must not change until then.
func (s *Sections) Add(w *Writer, t safetensors.Tensor, p []byte, off int64) error {
	body, at, err := w.locate(t, s.next, len(p), off)
	if err == nil {
		s.list, s.next = append(s.list, section{w, body, at, p}), body+1
	}
	return err
}

// Write writes all sections and empties s. The order of the files is not defined.
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

// oneCall returns how many of the first sections to write in one call.
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

// write writes adjacent sections in one call.
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
	if err := first.to.writeAt(data, first.at); err != nil {
		return first.to.after(fmt.Errorf("write tensor %.200q: %w", first.to.header.Tensors[first.body].Name, err))
	}
	for _, one := range list {
		one.to.wrote(one.body, int64(len(one.data)))
	}
	first.to.tell(len(data))
	return nil
}

// adjacent returns the data of all sections as one slice if it is adjacent in memory
// and each slice has the capacity to reach the next.
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
