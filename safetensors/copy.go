package safetensors

import (
	"errors"
	"fmt"
	"os"
)

// MayCopy reports whether [Writer.CopySection] can leave the copying to the
// system, as far as is known.
func (w *Writer) MayCopy() bool { return canCopy && w.file != nil && !w.refused.Load() }

// CopySection writes n bytes of tensor from of f, beginning off bytes into it,
// to the same place in t. They do not pass through the program where the system
// copies between the two files. Errors are those of [Writer.WriteSection] and
// [File.ReadSection].
func (w *Writer) CopySection(t Tensor, f *File, from Tensor, off int64, n int) error {
	i, at, err := w.locate(t, 0, n, off)
	if err != nil {
		return err
	}
	copied := 0
	if w.MayCopy() {
		copied, err = f.copyTo(w.file, at, from, off, n)
		w.written[i].Add(int64(copied))
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("write tensor %s: %w", quoted(t.Name), err)
		}
		w.refused.Store(copied < n)
	}
	return w.copyRest(t, f, from, off+int64(copied), n-copied)
}

// copyRest copies through a buffer.
func (w *Writer) copyRest(t Tensor, f *File, from Tensor, off int64, n int) error {
	buffer := make([]byte, min(n, mostJoined))
	for n > 0 {
		some := buffer[:min(n, len(buffer))]
		if err := f.ReadSection(from, some, off); err != nil {
			return err
		}
		if err := w.WriteSection(t, some, off); err != nil {
			return err
		}
		off, n = off+int64(len(some)), n-len(some)
	}
	return nil
}

// copyTo lets the system copy to place at of dst. It returns how much it has
// copied; the error is [errors.ErrUnsupported] where it does not copy between
// these files, or does not go on.
func (f *File) copyTo(dst *os.File, at int64, from Tensor, off int64, n int) (int, error) {
	place, err := f.place(from, n, off)
	if err != nil {
		return 0, err
	}
	if err := f.acquire(); err != nil {
		return 0, err
	}
	defer f.mu.RUnlock()
	return copyRange(dst, at, f.file.File, place, n)
}
