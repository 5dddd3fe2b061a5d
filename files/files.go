// Package files is where checkpoints are read from and written to: [Dir] for paths,
// [FS] for a file system of Go's, and whatever else a program has, such as a store of
// objects, by a few methods of [Source] and [Sink].
package files

import (
	"cmp"
	"context"
	"io"
	"path"
	"path/filepath"
	"strings"
)

// Source is files by names. A checkpoint in it is told by the names, as in a folder.
// Its methods are called by several goroutines at a time.
type Source interface {
	// String is what messages and reports call it.
	String() string
	// List returns the names of all files, as slash-separated paths without a slash
	// at the beginning. It is called once in a run.
	List(ctx context.Context) ([]string, error)
	// Open opens a file that is listed. What it returns is closed when no more is to
	// be read, perhaps opened again later, if it is an [io.Closer]. The context is
	// that of the run: reads that come after its end may fail, and ones that wait had
	// better.
	Open(ctx context.Context, name string) (File, error)
}

// File is what a [Source] opens; a [bytes.Reader] is one, and an [io.SectionReader].
// ReadAt is called by several goroutines at a time, for tensors' bodies with large
// ranges.
//
// Where it has a method Version() string too, a text that is another one when the
// content is (an ETag, a time), files that change while they are read are noticed, and
// the run ends with an error.
type File interface {
	io.ReaderAt
	Size() int64
}

// Sink is where an output goes.
type Sink interface {
	// String is what messages and reports call it. An output is one file of that name
	// where it ends in .safetensors, else it is a folder of files.
	String() string
	// Begin prepares an output. Where one is there already it is an error, an
	// [fs.ErrExist], unless it is to be replaced.
	Begin(ctx context.Context, replace bool) (Output, error)
}

// Output is files that are being written; none of them is to be seen before Commit.
//
// Where it has a method Open(ctx, name) (File, error) too, files are read again once
// they are written, for what needs that: the measuring of errors.
type Output interface {
	// Create adds a file of a name, a slash-separated path, that will have that many
	// bytes. Each is written once, in no order that is known; WriteAt is called by
	// several goroutines at a time.
	Create(name string, size int64) (io.WriterAt, error)
	// Commit makes all files seen, at once as far as that can be. All is written then.
	Commit(ctx context.Context) error
	// Abort leaves nothing behind. It is called once, after Commit, too, whether that
	// failed or not, and does nothing to what was committed.
	Abort() error
}

// at is a folder or a file of a source.
type at struct {
	Source
	name string
}

// At is the file or folder of that name in a source: a file by itself, whatever else
// there is, an index or a folder for what it holds.
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

// Whole is the source that it is of, and the name in it.
func (a at) Whole() (s Source, name string) { return a.Source, a.name }
