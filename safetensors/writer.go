package safetensors

import (
	"fmt"
	"io"
	"sync/atomic"
)

// Writer writes a file section by section, each at its final offset. It only counts the
// bytes of each body: it does not notice if a section is written twice and another one
// not at all.
type Writer struct {
	w       io.WriterAt
	header  *Header
	written []atomic.Int64 // bytes written per tensor of header.Tensors
}

// NewWriter writes the header to w and returns a writer of the bodies. h must
// come from [NewHeader], else the error is [ErrInvalid].
func NewWriter(w io.WriterAt, h *Header) (*Writer, error) {
	if size := h.encodedSize(); size != h.DataStart {
		return nil, errorOf(ErrInvalid, "header encodes to %d bytes, want %d: it was read from a file laid out otherwise",
			size, h.DataStart)
	}
	if _, err := h.WriteTo(io.NewOffsetWriter(w, 0)); err != nil {
		return nil, fmt.Errorf("write header: %w", err)
	}
	return &Writer{w: w, header: h, written: make([]atomic.Int64, len(h.Tensors))}, nil
}

// WriteSection writes p into the body of the header's tensor named t.Name, beginning
// off bytes into it. Different sections can be written concurrently if the
// [io.WriterAt] allows that. Errors name the tensor: [ErrInvalid] if the header does
// not have it, [ErrRange] if p goes past its end.
func (w *Writer) WriteSection(t Tensor, p []byte, off int64) error {
	i, ok := w.header.position(t.Name)
	if !ok {
		return errorOf(ErrInvalid, "tensor %s is not in the header", quoted(t.Name))
	}
	at, err := w.header.Section(w.header.Tensors[i], len(p), off)
	if err != nil {
		return fmt.Errorf("tensor %s: %w", quoted(t.Name), err)
	}
	if _, err := w.w.WriteAt(p, at); err != nil {
		return fmt.Errorf("write tensor %s: %w", quoted(t.Name), err)
	}
	w.written[i].Add(int64(len(p)))
	return nil
}

// Finish makes sure that each body is complete. The error is [ErrIncomplete] and names
// the first tensor, in file order, of which more or fewer bytes were written than it
// has. Finish does not close or sync the file.
func (w *Writer) Finish() error {
	for i, t := range w.header.Tensors {
		if got := w.written[i].Load(); got != t.Size {
			return errorOf(ErrIncomplete, "tensor %s: wrote %d bytes, want %d", quoted(t.Name), got, t.Size)
		}
	}
	return nil
}
