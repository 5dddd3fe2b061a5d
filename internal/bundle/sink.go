package bundle

import (
	"context"
	"io"
	"path"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
)

// Sink is where the files of a model go: a folder of an output.
type Sink interface {
	Create(name string, size int64) (io.WriterAt, error)
	WriteFile(name string, data []byte) error
	CopyFile(ctx context.Context, name string, from source.Source) error
}

// IsFolder reports whether a destination is one, by its name.
func IsFolder(dest string) bool { return stage.IsFolder(dest) }

// Listing is a sink that records what would be written and writes nothing.
type Listing struct {
	Bytes int64 // of what is copied
	All   []Listed
}

// Listed is a file that would be written.
type Listed struct {
	Name  string
	Bytes int64
	Text  []byte // what is written, nil for a copy
}

// Names are those of all files.
func (l *Listing) Names() (names []string) {
	for _, f := range l.All {
		names = append(names, f.Name)
	}
	return names
}

// In is a folder of the listing.
func (l *Listing) In(folder string) Sink { return listed{l, folder} }

// listed is a folder of a listing.
type listed struct {
	*Listing
	folder string
}

func (l listed) add(name string, bytes int64, text []byte) {
	name = path.Join(l.folder, name)
	l.All = append(l.All, Listed{name, bytes, text})
}

func (l listed) Create(name string, size int64) (io.WriterAt, error) {
	l.add(name, size, nil)
	return nil, nil
}

func (l listed) WriteFile(name string, data []byte) error {
	l.add(name, int64(len(data)), data)
	return nil
}

func (l listed) CopyFile(_ context.Context, name string, from source.Source) error {
	size := int64(0)
	if info, err := from.Stat(from.Path); err == nil { // else the copy says what is wrong
		size = info.Size()
	}
	l.add(name, size, nil)
	l.Bytes += size
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
		paths = append(paths, c.Beside(name).Path)
	}
	return paths
}

// CreateFiles opens the files of a plan for their bodies.
func CreateFiles(s Sink, files []plan.File) ([]*bodies.Writer, error) {
	var all []*bodies.Writer
	for _, file := range files {
		f, err := s.Create(file.Name, file.Header.FileSize())
		if err != nil {
			return nil, err
		}
		all = append(all, bodies.NewWriter(f, file.Header))
	}
	return all, nil
}
