package checkpoint

import (
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// MaxText is the most bytes that a JSON file beside weights may have: that of a
// header, which says more about each tensor.
const MaxText = 100_000_000

// ReadFile reads a small file of a user's. A FIFO, a device, and what does not end
// is an [ErrSource]: reading one might never come back.
func ReadFile(path string, most int64) ([]byte, error) {
	one := source.Path(path)
	return source.ReadFile(one.Tree, path, most)
}

// Witness remembers files of a tree as they were when they were read. It is safe for
// concurrent use.
type Witness struct {
	Tree source.Tree
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
	if info, err := w.Tree.Stat(path); err == nil {
		w.See(path, info)
	}
	return source.ReadFile(w.Tree, path, MaxText)
}

// Unchanged is an [ErrSource] if a file is not what it was: another one, of
// another size, or written to.
func (w *Witness) Unchanged() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, path := range slices.Sorted(maps.Keys(w.seen)) {
		if err := unchanged(w.Tree, path, w.seen[path]); err != nil {
			return err
		}
	}
	return nil
}

func unchanged(t source.Tree, path string, was fs.FileInfo) error {
	same, err := t.Unchanged(path, was)
	if err == nil && !same {
		err = usage.SourceErrorf("%s: changed while it was read: run again once nothing writes to it", path)
	}
	return err
}
