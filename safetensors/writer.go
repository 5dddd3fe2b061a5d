package safetensors

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Writer writes a file section by section, each at its final offset. It counts
// the bytes of each body: it does not notice a section that is written twice in
// place of another.
type Writer struct {
	w       io.WriterAt
	file    *os.File // w if it is one
	header  *Header
	written []atomic.Int64 // bytes per tensor, as header.Tensors
	number  int64          // tells writers apart
	refused atomic.Bool    // the system does not copy to the file
	begun   atomic.Bool    // the header is written
}

var writers atomic.Int64

// NewWriter writes the header to w and returns a writer of the bodies. h must
// come from [NewHeader], else the error is [ErrInvalid].
func NewWriter(w io.WriterAt, h *Header) (*Writer, error) {
	all, err := NewBodies(w, h)
	if err == nil {
		err = all.WriteHeader()
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// NewBodies is [NewWriter] that leaves the header to [Writer.WriteHeader].
func NewBodies(w io.WriterAt, h *Header) (*Writer, error) {
	if size := h.encodedSize(); size != h.DataStart {
		return nil, errorOf(ErrInvalid, "header encodes to %d bytes, want %d: it was read from a file laid out otherwise",
			size, h.DataStart)
	}
	file, isFile := w.(*os.File)
	if isFile {
		w = newPrompt(file)
	}
	return &Writer{w: w, file: file, header: h, written: make([]atomic.Int64, len(h.Tensors)), number: writers.Add(1)}, nil
}

// WriteHeader writes what comes before the bodies. It may run beside the writing of
// sections if the [io.WriterAt] is safe for that.
func (w *Writer) WriteHeader() error {
	at := int64(0)
	for piece := range w.header.pieces(w.header.DataStart) {
		if _, err := w.w.WriteAt(piece, at); err != nil {
			return fmt.Errorf("write header: %w", err)
		}
		at += int64(len(piece))
	}
	w.begun.Store(true)
	return nil
}

// WriteSection writes p into the body of the header's tensor named t.Name,
// beginning off bytes into it. It is safe for concurrent use on different
// sections if the [io.WriterAt] is. Errors name the tensor: [ErrInvalid] if the
// header does not have it, [ErrRange] if p goes past its end.
func (w *Writer) WriteSection(t Tensor, p []byte, off int64) error {
	i, at, err := w.locate(t, 0, len(p), off)
	if err != nil {
		return err
	}
	if _, err := w.w.WriteAt(p, at); err != nil {
		return fmt.Errorf("write tensor %s: %w", quoted(t.Name), err)
	}
	w.written[i].Add(int64(len(p)))
	return nil
}

// locate returns which tensor of the header t is, likely that one, and where in
// the file n bytes lie that begin off bytes into it.
func (w *Writer) locate(t Tensor, likely, n int, off int64) (i int, at int64, err error) {
	i, ok := w.header.find(t, likely)
	if !ok {
		return 0, 0, errorOf(ErrInvalid, "tensor %s is not in the header", quoted(t.Name))
	}
	own := w.header.Tensors[i]
	if err := checkSection(own, n, off); err != nil {
		return 0, 0, fmt.Errorf("tensor %s: %w", quoted(t.Name), err)
	}
	return i, w.header.DataStart + own.Offset + off, nil
}

// Finish makes sure that the header is written and each body complete. The error is
// [ErrIncomplete] and names the first tensor, in file order, of which more or fewer
// bytes were written than it has. It does not close or sync what it wrote to.
func (w *Writer) Finish() error {
	if !w.begun.Load() {
		return errorOf(ErrIncomplete, "the header is not written")
	}
	for i, t := range w.header.Tensors {
		if got := w.written[i].Load(); got != t.Size {
			return errorOf(ErrIncomplete, "tensor %s: wrote %d bytes, want %d", quoted(t.Name), got, t.Size)
		}
	}
	return nil
}
