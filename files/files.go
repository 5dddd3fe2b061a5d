// Package files has the places that checkpoints are read from and written to: [Dir] for
// paths, [FS] for Go's file systems, and anything else, such as an object store, that a
// program gives the few methods of [Source] and [Sink].
package files

import (
	"cmp"
	"context"
	"io"
	"path"
	"path/filepath"
	"strings"
)

// Source gives access to files by name. A checkpoint is recognised by the names, as in
// a folder. Methods are called by several goroutines at a time.
type Source interface {
	// String is what messages and reports call it.
	String() string
	// List returns the names of all files, as slash-separated paths without a slash
	// at the beginning. It is called once in a run.
	List(ctx context.Context) ([]string, error)
	// Open opens a file that List returned. If the result is an [io.Closer] it is
	// closed when it is not needed for the moment; the file may be opened again later.
	// The context is that of the run: reads may fail after it is cancelled, and a read
	// that is blocked should.
	Open(ctx context.Context, name string) (File, error)
}

// File is what a [Source] opens; a [bytes.Reader] is one, and an [io.SectionReader].
// ReadAt is called by several goroutines at a time, with large ranges for tensors'
// bodies.
//
// A file may also have a method Version() string, whose result changes whenever the
// content does (an ETag, a time). Then a file that changes while it is read is noticed,
// and the run ends with an error.
type File interface {
	io.ReaderAt
	Size() int64
}

// Sink is a place that an output is written to.
type Sink interface {
	// String is what messages and reports call it. An output is one file of that name
	// where it ends in .safetensors, else it is a folder of files.
	String() string
	// Begin prepares an output. If there already is one, that is an error, an
	// [io/fs.ErrExist], unless replace is set.
	Begin(ctx context.Context, replace bool) (Output, error)
}

// Output is a set of files that are being written; none of them may be visible before
// Commit.
//
// An output may also have a method Open(ctx, name) (File, error), which reads a file
// again after it was written. Measuring errors needs that.
type Output interface {
	// Create adds a file of size bytes under a name, a slash-separated path. Every byte
	// is written once, in no particular order; WriteAt is called by several goroutines
	// at a time.
	Create(name string, size int64) (io.WriterAt, error)
	// Commit makes all files visible, at once as far as possible. Everything has been
	// written by then.
	Commit(ctx context.Context) error
	// Abort discards the output. It is called once, also after Commit, whether that
	// failed or not; what was committed must stay.
	Abort() error
}

// at is a folder or a file of a source.
type at struct {
	Source
	name string
}

// At returns the file or folder of that name in a source as a source of its own: a file
// by itself, whatever lies beside it, or an index or a folder with what belongs to it.
func At(s Source, name string) Source {
	name = path.Clean(name)
	switch of := s.(type) {
	case Dir:
		return Dir(filepath.Join(string(of), filepath.FromSlash(name)))
	case at:
		return at{of.Source, path.Join(of.name, name)}
	}
	return at{s, name}
}

func (a at) String() string { return cmp.Or(a.Source.String(), ".") + "/" + a.name }

// List lists the files below the folder, or the one file that it is, for those who wrap
// it: a run reads the whole source, see Whole.
func (a at) List(ctx context.Context) (names []string, err error) {
	all, err := a.Source.List(ctx)
	if err != nil || a.name == "." {
		return all, err
	}
	for _, name := range all {
		if name == a.name {
			return []string{path.Base(name)}, nil
		}
		if below, ok := strings.CutPrefix(name, a.name+"/"); ok {
			names = append(names, below)
		}
	}
	return names, nil
}

// Open opens a file of the folder, or, of a file, what lies beside it.
func (a at) Open(ctx context.Context, name string) (File, error) {
	folder := a.name
	if ext := path.Ext(folder); ext == ".safetensors" || ext == ".json" {
		folder = path.Dir(folder)
	}
	return a.Source.Open(ctx, path.Join(folder, name))
}

// Whole returns the source that contains it, and its name there.
func (a at) Whole() (s Source, name string) { return a.Source, a.name }
