package checkpoint

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// MaxText is the most bytes that a JSON file beside weights may have: that of a
// header, which says more about each tensor.
const MaxText = 100_000_000

// ReadFile reads a small file of a user's. A FIFO, a device, and what does not end
// is an [ErrSource]: reading one might never come back.
func ReadFile(path string, most int64) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = usage.SourceErrorf("%s: is larger than %d bytes", path, most)
	}
	return text, err
}

// openFile opens what is a file; opening a FIFO would wait for its writer.
func openFile(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() { // which the system refuses to read
		err = checkRegular(path, info)
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

func checkRegular(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return usage.SourceErrorf("%s: is %s, want a file", path, kindOf(info.Mode()))
}

// kindOf says what a path is that is no file.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// Witness remembers files as they were when they were read. The zero value
// remembers none; it is safe for concurrent use.
type Witness struct {
	mu   sync.Mutex
	seen map[string]fs.FileInfo
}

// See remembers a file, unless it does already.
func (w *Witness) See(path string, info fs.FileInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		w.seen = map[string]fs.FileInfo{}
	}
	if w.seen[path] == nil {
		w.seen[path] = info
	}
}

// ReadFile is [ReadFile] of a file that is remembered.
func (w *Witness) ReadFile(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil {
		w.See(path, info)
	}
	return ReadFile(path, MaxText)
}

// Unchanged is an [ErrSource] if a file is not what it was: another one, of
// another size, or written to.
func (w *Witness) Unchanged() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, path := range slices.Sorted(maps.Keys(w.seen)) {
		old := w.seen[path]
		now, err := os.Stat(path)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case err != nil || !os.SameFile(old, now) || old.Size() != now.Size() || !old.ModTime().Equal(now.ModTime()):
			return changedError(path)
		}
	}
	return nil
}

func changedError(path string) error {
	return usage.SourceErrorf("%s: changed while it was read: run again once nothing writes to it", path)
}
