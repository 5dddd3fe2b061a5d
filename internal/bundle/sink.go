package bundle

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Sink is where the files of a model go: a stage, or a folder in one.
type Sink interface {
	Create(name string) (io.WriterAt, error)
	WriteFile(name string, data []byte) error
	CopyFile(ctx context.Context, name, from string) error
}

// IsFolder reports whether a destination is one, by its name.
func IsFolder(dest string) bool { return filepath.Ext(filepath.Clean(dest)) != ".safetensors" }

// Listing is a place that knows what is written and writes nothing.
type Listing struct {
	Names []string
	Bytes int64
}

// In is a folder of the listing.
func (l *Listing) In(folder string) Sink { return listed{l, folder} }

// listed is a folder of one.
type listed struct {
	*Listing
	folder string
}

func (l listed) add(name string) { l.Names = append(l.Names, path.Join(l.folder, name)) }

func (l listed) Create(name string) (io.WriterAt, error) {
	l.add(name)
	return nil, nil
}

func (l listed) WriteFile(name string, data []byte) error {
	l.add(name)
	return nil
}

func (l listed) CopyFile(_ context.Context, name, from string) error {
	l.add(name)
	if info, err := os.Stat(from); err == nil { // else the copy says what is wrong
		l.Bytes += info.Size()
	}
	return nil
}

// SourcePaths are the files that are read, and the folder where one was named or,
// with its index, is copied.
func SourcePaths(c *checkpoint.Checkpoint, copied bool) []string {
	paths := []string{c.Path}
	if copied && c.Index != "" {
		paths = append(paths, c.Dir)
	}
	for _, name := range c.ShardNames {
		paths = append(paths, filepath.Join(c.Dir, filepath.FromSlash(name)))
	}
	return paths
}

// CreateFiles opens the files of a plan for their bodies.
func CreateFiles(s Sink, files []plan.File) ([]*safetensors.Writer, error) {
	var all []*safetensors.Writer
	for _, file := range files {
		f, err := s.Create(file.Name)
		if err != nil {
			return nil, err
		}
		w, err := safetensors.NewBodies(f, file.Header)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}
