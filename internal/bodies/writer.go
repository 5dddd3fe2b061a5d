// Package bodies puts the bodies of tensors into files as they come: in few calls,
// whatever the order, and by the system where it copies between files. What it writes
// is what a [safetensors.Writer] does.
package bodies

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"github.com/tensorpress/tensorpress/internal/prompt"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Writer writes a file section by section, each at its final offset, and counts the
// bytes of each body. It is safe for concurrent use on different sections if what it
// writes to is.
type Writer struct {
	w       io.WriterAt
	file    *os.File // w if it is one
	header  *safetensors.Header
	written []atomic.Int64 // bytes per tensor, as header.Tensors
	number  int64          // tells writers apart
	refused atomic.Bool    // the system does not copy to the file
	begun   atomic.Bool    // the header is written
}

var writers atomic.Int64

// NewWriter is for a file with a header of [safetensors.NewHeader], which is left to
// [Writer.WriteHeader].
func NewWriter(w io.WriterAt, h *safetensors.Header) *Writer {
	file, isFile := w.(*os.File)
	if isFile {
		w = prompt.New(file)
	}
	return &Writer{w: w, file: file, header: h, written: make([]atomic.Int64, len(h.Tensors)), number: writers.Add(1)}
}

// WriteHeader writes what comes before the bodies.
func (w *Writer) WriteHeader() error {
	if _, err := w.header.WriteTo(io.NewOffsetWriter(w.w, 0)); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	w.begun.Store(true)
	return nil
}

// WriteSection writes p into the body of t, a tensor of the header, beginning off
// bytes into it.
func (w *Writer) WriteSection(t safetensors.Tensor, p []byte, off int64) error {
	i, at, err := w.locate(t, 0, len(p), off)
	if err != nil {
		return err
	}
	if _, err := w.w.WriteAt(p, at); err != nil {
		return fmt.Errorf("write tensor %.200q: %w", t.Name, err)
	}
	w.written[i].Add(int64(len(p)))
	return nil
}

var errForeign = errors.New("is not in the header")

// locate returns which tensor of the header t is, likely that one, and where in
// the file n bytes lie that begin off bytes into it.
func (w *Writer) locate(t safetensors.Tensor, likely, n int, off int64) (i int, at int64, err error) {
	i, ok := w.find(t, likely)
	if !ok {
		return 0, 0, fmt.Errorf("tensor %.200q %w", t.Name, errForeign)
	}
	if at, err = w.header.Section(w.header.Tensors[i], n, off); err != nil {
		return 0, 0, fmt.Errorf("tensor %.200q: %w", t.Name, err)
	}
	return i, at, nil
}

// find returns which tensor of the header t is, by its offset: of tensors without
// bytes several have the same.
func (w *Writer) find(t safetensors.Tensor, likely int) (int, bool) {
	all := w.header.Tensors
	is := func(i int) bool { return i < len(all) && all[i].Offset == t.Offset }
	if is(likely) && all[likely].Name == t.Name {
		return likely, true
	}
	i, _ := slices.BinarySearchFunc(all, t.Offset, func(t safetensors.Tensor, offset int64) int { return cmp.Compare(t.Offset, offset) })
	for ; is(i); i++ {
		if all[i].Name == t.Name {
			return i, true
		}
	}
	return 0, false
}

// Finish makes sure that the header is written and each body complete: the error, a
// [safetensors.ErrIncomplete], names the first tensor in file order that is not. It
// does not close or sync what it wrote to.
func (w *Writer) Finish() error {
	if !w.begun.Load() {
		return fmt.Errorf("%w: the header is not written", safetensors.ErrIncomplete)
	}
	for i, t := range w.header.Tensors {
		if got := w.written[i].Load(); got != t.Size {
			return fmt.Errorf("%w %.200q: wrote %d bytes, want %d", safetensors.ErrIncomplete, t.Name, got, t.Size)
		}
	}
	return nil
}
