// Package bodies writes the bodies of tensors as they come, in any order, with few
// calls, and by the system's own copying between files where that exists. The files are
// the same as those of a [safetensors.Writer].
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
// bytes of each body. Different sections can be written concurrently if the underlying
// [io.WriterAt] allows that.
type Writer struct {
	w       io.WriterAt
	file    *os.File // the underlying file, nil if it is none
	header  *safetensors.Header
	written []atomic.Int64 // bytes written per tensor of header.Tensors
	number  int64          // sorts sections by their writer
	refused atomic.Bool    // the system has refused to copy to the file
	begun   atomic.Bool    // the header is written
	heard   func(n int)    // hears of bytes that are written, nil for nobody
	left    atomic.Int64   // bytes of bodies, the header and holds, before it is whole
	whole   func()         // nil for nobody who wants to know
	fail    func(err error) error
	failed  atomic.Bool // fail was told of an error and took it
}

var writers atomic.Int64

// NewWriter returns a writer of the bodies for a header of [safetensors.NewHeader]. The
// header itself is written by [Writer.WriteHeader].
func NewWriter(w io.WriterAt, h *safetensors.Header) *Writer {
	file, isFile := w.(*os.File)
	if isFile {
		w = prompt.New(file)
	}
	return &Writer{w: w, file: file, header: h, written: make([]atomic.Int64, len(h.Tensors)), number: writers.Add(1)}
}

// Tell has bytes that are written counted, too.
func (w *Writer) Tell(wrote func(n int)) { w.heard = wrote }

// tell counts bytes that were written.
func (w *Writer) tell(n int) {
	if w.heard != nil {
		w.heard(n)
	}
}

// OnError has errors of writing go to fail before anybody else hears of them. Where that
// returns nil, nothing more is written, and what comes counts as written: the output is
// given up, and others of the same run go on. It must be called before anything is written.
func (w *Writer) OnError(fail func(err error) error) { w.fail = fail }

// writeAt writes unless the output was given up.
func (w *Writer) writeAt(p []byte, at int64) error {
	if w.failed.Load() {
		return nil
	}
	_, err := w.w.WriteAt(p, at)
	return err
}

// after is an error of writing after fail was told of it.
func (w *Writer) after(err error) error {
	if err == nil || w.fail == nil {
		return err
	}
	err = w.fail(err)
	w.failed.Store(w.failed.Load() || err == nil)
	return err
}

// WriteHeader writes the header: all that comes before the bodies.
func (w *Writer) WriteHeader() error {
	n, err := w.header.WriteTo(io.NewOffsetWriter(w.w, 0))
	if err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	w.tell(int(n))
	w.begun.Store(true)
	w.less(1)
	return nil
}

// WhenWhole has do called once, by whoever writes the last bytes, when all is written and
// nobody holds the writer. It is asked for before anything is written.
func (w *Writer) WhenWhole(do func()) {
	w.whole = do
	left := int64(1) // the header
	for _, t := range w.header.Tensors {
		left += t.Size
	}
	w.left.Store(left)
}

// Hold keeps the file from counting as whole until Release: work goes on that may yet fail.
func (w *Writer) Hold() { w.left.Add(1) }

// Release ends a Hold.
func (w *Writer) Release() { w.less(1) }

// less counts what is done.
func (w *Writer) less(n int64) {
	if w.whole != nil && n > 0 && w.left.Add(-n) == 0 {
		w.whole()
	}
}

// wrote counts bytes of a tensor.
func (w *Writer) wrote(i int, n int64) {
	w.written[i].Add(n)
	w.less(n)
}

// WriteSection writes p into the body of t, a tensor of the header, beginning off
// bytes into it.
func (w *Writer) WriteSection(t safetensors.Tensor, p []byte, off int64) error {
	i, at, err := w.locate(t, 0, len(p), off)
	if err != nil {
		return err
	}
	if err := w.writeAt(p, at); err != nil {
		return w.after(fmt.Errorf("write tensor %.200q: %w", t.Name, err))
	}
	w.wrote(i, int64(len(p)))
	return nil
}

var errForeign = errors.New("is not in the header")

// locate returns the index of t in the header, trying likely first, and the offset in
// the file of n bytes that begin off bytes into t.
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

// find returns the index of t in the header. It searches by offset; tensors without
// bytes may share one.
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

// Finish makes sure that the header is written and each body complete. The error is
// [safetensors.ErrIncomplete] and names the first tensor, in file order, that is not.
// It does not close or sync the file.
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
