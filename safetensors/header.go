package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
	"unsafe"
)

const (
	// MaxHeader is the most bytes that the JSON of a header may have, as in the
	// reference.
	MaxHeader = 100_000_000

	lengthBytes = 8 // a file begins with the length of the JSON
	metadataKey = "__metadata__"
)

// Header describes the tensors of a file. It must not be changed.
type Header struct {
	Tensors []Tensor // ascending by Offset
	// Metadata is nil if the file has none, and empty if it has an empty one.
	Metadata map[string]string
	// DataStart is where the data section begins, in bytes from the start of the
	// file.
	DataStart int64

	size    int64 // of the data section, in bytes
	encoded int64 // length of what Encode returns, for a header of NewHeader

	indexed sync.Once
	index   map[string]int // index in Tensors by name, made when it is first needed
}

// Lookup returns the tensor of that name.
func (h *Header) Lookup(name string) (Tensor, bool) {
	i, ok := h.position(name)
	if !ok {
		return Tensor{}, false
	}
	return h.Tensors[i], true
}

// position returns the index in h.Tensors of the tensor of that name.
func (h *Header) position(name string) (int, bool) {
	h.indexed.Do(func() {
		h.index = make(map[string]int, len(h.Tensors))
		for i, t := range h.Tensors {
			h.index[t.Name] = i
		}
	})
	i, ok := h.index[name]
	return i, ok
}

// FileSize returns the size of the whole file in bytes.
func (h *Header) FileSize() int64 { return h.DataStart + h.size }

// Section returns the offset in the file of n bytes that begin off bytes into the body
// of t. The error is [ErrRange] if they do not lie within t, or t does not lie within
// the data section.
func (h *Header) Section(t Tensor, n int, off int64) (at int64, err error) {
	if t.Offset < 0 || t.Size < 0 || t.Offset > h.size-t.Size {
		return 0, errorOf(ErrRange, "%d bytes at %d are not in the data section of %d bytes", t.Size, t.Offset, h.size)
	}
	if off < 0 || off > t.Size || int64(n) > t.Size-off {
		return 0, errorOf(ErrRange, "section of %d bytes at %d goes past its %d bytes", n, off, t.Size)
	}
	return h.DataStart + t.Offset + off, nil
}

// ReadHeader reads the header of a file of the given size in bytes and checks that it
// describes every byte of such a file. The error is [ErrFormat] if it does not; errors
// of r are wrapped.
func ReadHeader(r io.ReaderAt, size int64) (*Header, error) {
	src, err := readJSON(r, size)
	if err != nil {
		return nil, err
	}
	h := &Header{DataStart: lengthBytes + int64(len(src))}
	if err := parseHeader(src, h); err != nil {
		return nil, err
	}
	h.size = size - h.DataStart
	if err := h.lay(h.size); err != nil {
		return nil, err
	}
	if err := h.checkNames(ErrFormat); err != nil {
		return nil, err
	}
	if len(src) > longText {
		h.cutFree()
	}
	return h, nil
}

// longText is the length from which a header's text is not kept in memory for the sake
// of the names in it, which are a third of it.
const longText = 4 << 20

// cutFree copies the strings that are parts of the header's text, so that it can be
// freed.
func (h *Header) cutFree() {
	size := 0
	for _, t := range h.Tensors {
		size += len(t.Name)
	}
	var all strings.Builder
	all.Grow(size)
	for i := range h.Tensors {
		t := &h.Tensors[i]
		start := all.Len()
		all.WriteString(t.Name)
		t.Name = all.String()[start:]
	}
	text := h.Metadata
	h.Metadata = maps.Clone(text) // nil stays nil
	clear(h.Metadata)
	for key, value := range text {
		h.Metadata[strings.Clone(key)] = strings.Clone(value)
	}
}

// startBytes is how much of a file is read first, in one call: enough for a header of a
// few dozen tensors.
const startBytes = 4 << 10

// readJSON reads the header's text, which is never longer than the file.
func readJSON(r io.ReaderAt, size int64) (string, error) {
	if size < lengthBytes {
		return "", formatErrorf("file of %d bytes is too short for a header, want at least %d", size, lengthBytes)
	}
	start := make([]byte, min(size, startBytes))
	if err := readFull(r, start, 0); err != nil {
		return "", fmt.Errorf("read header: %w", err)
	}
	n, err := textLength(start, size)
	if err != nil {
		return "", err
	}
	text := start[lengthBytes:]
	if n <= len(text) {
		text = text[:n]
	} else if text, err = readRest(r, text, n); err != nil {
		return "", fmt.Errorf("read header: %w", err)
	}
	if text[0] != '{' {
		return "", formatErrorf("header starts with %q, want '{'", text[:1])
	}
	if !utf8.Valid(text) {
		return "", formatErrorf("header is not valid UTF-8")
	}
	return unsafe.String(&text[0], n), nil // text is not changed any more
}

// textLength returns the length of the header's text. It checks it against the file's
// size, so that a false length allocates nothing.
func textLength(start []byte, size int64) (int, error) {
	n := binary.LittleEndian.Uint64(start)
	switch {
	case n == 0:
		return 0, formatErrorf("header is empty")
	case n > MaxHeader:
		return 0, formatErrorf("header length is %d bytes, want at most %d", n, MaxHeader)
	case int64(n) > size-lengthBytes:
		return 0, formatErrorf("header length is %d bytes, but only %d follow: the file is truncated", n, size-lengthBytes)
	}
	return int(n), nil
}

// readRest reads the rest of a text of n bytes that begins with first.
func readRest(r io.ReaderAt, first []byte, n int) ([]byte, error) {
	text := make([]byte, n)
	have := copy(text, first)
	return text, readFull(r, text[have:], lengthBytes+int64(have))
}

// readFull fills p from off. A reader may report io.EOF along with the last byte.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("got %d of %d bytes at %d: %w", n, len(p), off, io.ErrUnexpectedEOF)
	}
	return err
}

// lay sorts the tensors by offset and checks that they fill a data section of size
// bytes exactly. Tensors without elements may share an offset; they keep their order.
func (h *Header) lay(size int64) error {
	byOffset := func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Size, b.Size))
	}
	if !slices.IsSortedFunc(h.Tensors, byOffset) {
		slices.SortStableFunc(h.Tensors, byOffset)
	}
	var end int64
	for i, t := range h.Tensors {
		if t.Offset != end {
			return misplaced(h.Tensors, i, end)
		}
		end += t.Size
	}
	switch {
	case end > size:
		return formatErrorf("file is truncated: tensors take %d bytes, the data section has %d", end, size)
	case end < size:
		return formatErrorf("%d trailing bytes after the last tensor: tensors take %d bytes, the data section has %d",
			size-end, end, size)
	}
	return nil
}

// misplaced says why tensor i cannot begin where it does.
func misplaced(tensors []Tensor, i int, want int64) error {
	t := tensors[i]
	switch {
	case i == 0:
		return formatErrorf("tensor %s: first offset is %d, want 0", quoted(t.Name), t.Offset)
	case t.Offset > want:
		return formatErrorf("tensor %s: begins at %d, want %d: %d bytes belong to no tensor",
			quoted(t.Name), t.Offset, want, t.Offset-want)
	}
	return formatErrorf("tensor %s: begins at %d, want %d: overlaps tensor %s",
		quoted(t.Name), t.Offset, want, quoted(tensors[i-1].Name))
}

// checkNames returns an error of that kind if a name is repeated.
func (h *Header) checkNames(kind error) error {
	if !mayRepeat(h.Tensors) {
		return nil
	}
	seen := make(map[string]bool, len(h.Tensors))
	for _, t := range h.Tensors {
		if seen[t.Name] {
			return errorOf(kind, "duplicate tensor name %s", quoted(t.Name))
		}
		seen[t.Name] = true
	}
	return nil
}

// mayRepeat reports false if no name is repeated. Names usually ascend within a dtype,
// so it merges a few ascending runs, which is cheaper than a map.
func mayRepeat(tensors []Tensor) bool {
	const few = 8
	var runs [][]Tensor
	for start, i := 0, 1; i <= len(tensors); i++ {
		if i < len(tensors) && tensors[i-1].Name < tensors[i].Name {
			continue
		}
		runs, start = append(runs, tensors[start:i]), i
		if len(runs) > few {
			return true
		}
	}
	return meet(runs)
}

// meet reports whether two of the ascending runs share a name.
func meet(runs [][]Tensor) bool {
	for len(runs) > 1 {
		least := 0
		for i := 1; i < len(runs); i++ {
			order := strings.Compare(runs[i][0].Name, runs[least][0].Name)
			if order == 0 {
				return true
			}
			if order < 0 {
				least = i
			}
		}
		if runs[least] = runs[least][1:]; len(runs[least]) == 0 {
			runs = slices.Delete(runs, least, least+1)
		}
	}
	return false
}
