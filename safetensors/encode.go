package safetensors

import (
	"encoding/binary"
	"io"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// NewHeader lays out tensors of the given Name, Dtype and Shape, and sets their Offset
// and Size. It sorts them as the reference writer does: by descending dtype, then by
// name. Empty metadata is written as such unless it is nil. The arguments are not kept.
//
// The error is [ErrInvalid] if a name is repeated, reserved or not UTF-8, a tensor's
// size is not defined, the bodies overflow, or the header exceeds [MaxHeader].
func NewHeader(tensors []Tensor, metadata map[string]string) (*Header, error) {
	from := order(tensors)
	h := &Header{Tensors: make([]Tensor, len(tensors)), Metadata: maps.Clone(metadata)}
	for i, place := range from {
		h.Tensors[i] = tensors[place]
	}
	if err := h.place(); err != nil {
		return nil, err
	}
	var repeated error
	var checking sync.WaitGroup
	checking.Go(func() { repeated = h.checkNames(ErrInvalid) })
	size := h.encodedSize()
	if checking.Wait(); repeated != nil {
		return nil, repeated
	}
	if err := checkMetadata(metadata); err != nil {
		return nil, err
	}
	h.encoded, h.DataStart = size, size
	if n := h.DataStart - lengthBytes; n > MaxHeader {
		return nil, errorOf(ErrInvalid, "header takes %d bytes, want at most %d", n, MaxHeader)
	}
	for i, place := range from {
		tensors[place].Offset, tensors[place].Size = h.Tensors[i].Offset, h.Tensors[i].Size
	}
	return h, nil
}

// order returns the indexes of tensors in the reference's order: sorted by dtype, then
// by name. The tensors of a dtype are usually in order already.
func order(tensors []Tensor) []int32 {
	var count, begin [256]int // number and first index of each dtype's tensors
	for i := range tensors {
		count[tensors[i].Dtype]++
	}
	for d := len(begin) - 2; d >= 0; d-- {
		begin[d] = begin[d+1] + count[d+1]
	}
	next, all := begin, make([]int32, len(tensors))
	for i := range tensors {
		d := tensors[i].Dtype
		all[next[d]] = int32(i)
		next[d]++
	}
	byName := func(a, b int32) int { return strings.Compare(tensors[a].Name, tensors[b].Name) }
	var sorting sync.WaitGroup
	for d, end := range next {
		if part := all[begin[d]:end]; !slices.IsSortedFunc(part, byName) {
			sorting.Go(func() { slices.SortFunc(part, byName) })
		}
	}
	sorting.Wait()
	return all
}

// place checks each tensor and gives it its offset and size.
func (h *Header) place() error {
	const most = math.MaxInt64 - lengthBytes - MaxHeader
	var end int64
	var last []int
	for i := range h.Tensors {
		t := &h.Tensors[i]
		if err := checkName(t.Name); err != nil {
			return err
		}
		size, err := ByteSize(t.Dtype, t.Shape)
		if err != nil {
			return errorOf(ErrInvalid, "tensor %s: %w", quoted(t.Name), err)
		}
		if size > most-end {
			return errorOf(ErrInvalid, "tensor %s: the file overflows", quoted(t.Name))
		}
		if last == nil || !slices.Equal(t.Shape, last) { // neighbours often have the same shape
			last = append([]int{}, t.Shape...)
		}
		t.Shape = last
		t.Offset, t.Size = end, size
		end += size
	}
	h.size = end
	return nil
}

func checkName(name string) error {
	if name == metadataKey {
		return errorOf(ErrInvalid, "tensor name %q is reserved", name)
	}
	if !utf8.ValidString(name) {
		return errorOf(ErrInvalid, "tensor name %s is not valid UTF-8", quoted(name))
	}
	return nil
}

func checkMetadata(metadata map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
			return errorOf(ErrInvalid, "metadata key %s: not valid UTF-8", quoted(key))
		}
	}
	return nil
}

// Encode returns the bytes before the data section: the length, the JSON and its
// padding to a multiple of 8. For a header of [NewHeader] they are DataStart bytes. A
// header that was read is encoded in the same form, in its own order, whatever spaces
// or escapes its file had.
func (h *Header) Encode() []byte {
	size := h.encodedSize()
	b := make([]byte, 0, size)
	for piece := range h.pieces(size) {
		b = append(b, piece...)
	}
	return b
}

// WriteTo writes the bytes that Encode returns, in pieces, since a header of many
// tensors is long. Errors are those of w.
func (h *Header) WriteTo(w io.Writer) (n int64, err error) {
	for piece := range h.pieces(h.encodedSize()) {
		some, err := w.Write(piece)
		if n += int64(some); err != nil {
			return n, err
		}
	}
	return n, nil
}

// encodedSize is the length of what Encode returns.
func (h *Header) encodedSize() int64 {
	if h.encoded > 0 {
		return h.encoded
	}
	n := int64(lengthBytes + len("{}") + max(len(h.Tensors)-1, 0))
	if h.Metadata != nil {
		n += int64(len(appendMetadata(nil, h.Metadata)) + min(len(h.Tensors), 1))
	}
	for i := range h.Tensors {
		n += int64(tensorLength(&h.Tensors[i]))
	}
	return (n + 7) / 8 * 8
}

// pieces yields the bytes of Encode, padded to size, in one buffer that is reused.
func (h *Header) pieces(size int64) iter.Seq[[]byte] {
	const enough = 64 << 10
	return func(yield func([]byte) bool) {
		b := binary.LittleEndian.AppendUint64(make([]byte, 0, min(size, enough)+enough/8), uint64(size-lengthBytes))
		b = append(b, '{')
		if h.Metadata != nil {
			b = appendMetadata(b, h.Metadata)
		}
		before := int64(0) // bytes of the pieces before
		for i, t := range h.Tensors {
			if len(b) >= enough {
				if !yield(b) {
					return
				}
				before += int64(len(b))
				b = b[:0]
			}
			if i > 0 || h.Metadata != nil {
				b = append(b, ',')
			}
			b = appendTensor(b, t)
		}
		b = append(b, '}')
		for before+int64(len(b)) < size {
			b = append(b, ' ')
		}
		yield(b)
	}
}

func appendMetadata(b []byte, metadata map[string]string) []byte {
	b = append(b, `"`+metadataKey+`":{`...)
	for i, key := range slices.Sorted(maps.Keys(metadata)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, key)
		b = append(b, ':')
		b = appendString(b, metadata[key])
	}
	return append(b, '}')
}

func appendTensor(b []byte, t Tensor) []byte {
	b = appendString(b, t.Name)
	b = append(b, `:{"dtype":"`...)
	b = append(b, t.Dtype.String()...)
	b = append(b, `","shape":[`...)
	for i, dim := range t.Shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(dim), 10)
	}
	b = append(b, `],"data_offsets":[`...)
	b = strconv.AppendInt(b, t.Offset, 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, t.Offset+t.Size, 10)
	return append(b, "]}"...)
}

// tensorLength returns how many bytes appendTensor adds, so that a header can be
// measured before it is written.
func tensorLength(t *Tensor) int {
	n := len(`"":{"dtype":"","shape":[],"data_offsets":[,]}`) + len(t.Name) + len(t.Dtype.String())
	for i := range len(t.Name) {
		if c := t.Name[i]; c < ' ' || c == '"' || c == '\\' {
			n += len(appendEscape(nil, c)) - 1
		}
	}
	for _, dim := range t.Shape {
		n += digits(int64(dim))
	}
	return n + max(len(t.Shape)-1, 0) + digits(t.Offset) + digits(t.Offset+t.Size)
}

// digits returns the number of decimal digits of n, which is not negative.
func digits(n int64) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}

// appendString quotes s as the reference does, which escapes only what JSON requires.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			b = appendEscape(append(b, s[start:i]...), c)
			start = i + 1
		}
	}
	return append(append(b, s[start:]...), '"')
}

func appendEscape(b []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	return append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
}
