package bodies

import (
	"errors"
	"fmt"
	"os"

	"github.com/tensorpress/tensorpress/internal/prompt"
	"github.com/tensorpress/tensorpress/safetensors"
)

// MayCopy reports whether the system may be able to do the copying of [Writer.Copy].
func (w *Writer) MayCopy() bool { return prompt.CanCopy && w.file != nil && !w.refused.Load() }

// Copy has the system copy n bytes of a tensor's body, beginning off bytes into it,
// from offset from of src. It returns how many bytes it has copied: 0 if the system
// cannot copy between the two files.
func (w *Writer) Copy(t safetensors.Tensor, off int64, n int, src *os.File, from int64) (copied int, err error) {
	i, at, err := w.locate(t, 0, n, off)
	if err != nil || !w.MayCopy() {
		return 0, err
	}
	copied, err = prompt.Copy(w.file, at, src, from, n)
	w.wrote(i, int64(copied))
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return copied, w.after(fmt.Errorf("write tensor %.200q: %w", t.Name, err))
	}
	w.refused.Store(copied < n)
	return copied, nil
}
