package checkpoint

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// MaxText is the most bytes that a JSON file beside weights may have. It is the limit
// of a safetensors header, which says more about each tensor than such a file.
const MaxText = 100_000_000

// ReadFile reads a small file that a user named. A FIFO, a device, or a file of more
// than most bytes is an [ErrSource], because reading one might never end.
func ReadFile(path string, most int64) ([]byte, error) {
	one := source.Path(path)
	text, err := source.ReadFile(one.Tree, path, most)
	return text, plainly(err)
}

// Witness remembers what files of a tree were like when they were read. It is safe for
// concurrent use.
type Witness struct {
	Tree source.Tree
	mu   sync.Mutex
	seen map[string]fs.FileInfo
}

// See remembers a file as it was when it was first seen.
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

// ReadFile reads a file of at most [MaxText] bytes and remembers it.
func (w *Witness) ReadFile(path string) ([]byte, error) {
	info, err := w.Tree.Stat(path)
	switch {
	case err == nil:
		w.See(path, info)
	case !w.Tree.OnDisk(): // it was tried for long, and is not tried again
		return nil, err
	}
	return source.ReadFile(w.Tree, path, MaxText)
}

// Stamps are those of the files, with their names as they lie from a folder.
func (w *Witness) Stamps(folder string) (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, path := range slices.Sorted(maps.Keys(w.seen)) {
		all = append(all, fmt.Sprintf("%q %s", strings.TrimPrefix(path, folder), source.Stamp(w.seen[path])))
	}
	return all
}

// Unchanged returns an [ErrSource] if a remembered file was replaced, changed its size,
// or was written to.
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
