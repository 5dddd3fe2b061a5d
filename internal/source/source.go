// Package source gives access to the files of a source by paths that can stand in
// messages, whether they are on disk or in a store that lists them.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// Source is a file or folder of a tree.
type Source struct {
	Tree
	Path string
}

// Of returns the source for the files of a run; ctx is that run's.
func Of(ctx context.Context, s files.Source) Source {
	if s == nil {
		s = files.Dir("")
	}
	if path, ok := s.(files.Dir); ok {
		return Source{disk{watch.Of(ctx)}, string(path)}
	}
	name := "."
	if part, ok := s.(interface{ Whole() (files.Source, string) }); ok { // made by files.At
		s, name = part.Whole()
	}
	t := newListed(ctx, s)
	return Source{t, t.Join(t.root, name)}
}

// Path returns a file or folder on disk.
func Path(path string) Source { return Source{disk{}, path} }

// In returns a folder of the source, "" for the whole source.
func (s Source) In(folder string) Source {
	if folder == "" {
		return s
	}
	return Source{s.Tree, s.Join(s.Path, folder)}
}

// Tree is a tree of files and folders. Paths are the system's, or for a store its name
// followed by a name in it.
type Tree interface {
	// Join returns the path of a name, which is a slash path, in a folder.
	Join(folder, name string) string
	// Split returns the folder and the file name of a path.
	Split(path string) (folder, name string)
	// Stat follows links.
	Stat(path string) (fs.FileInfo, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	// Open opens a file. It refuses a FIFO or a device with a [usage.ErrSource],
	// without opening it.
	Open(path string) (*File, error)
	// Unchanged reports whether a file is still what Stat or Open said of it.
	Unchanged(path string, was fs.FileInfo) (bool, error)
	// OnDisk reports whether paths are the system's.
	OnDisk() bool
}

// File is an open file.
type File struct {
	io.ReaderAt
	Info     fs.FileInfo
	Sections io.ReaderAt // the same file, for reading many parts that lie near each other
	OS       *os.File    // nil if it is not a file on disk
	watch    *watch.Run  // counts what is read
	close    func() error
}

// Close closes it.
func (f *File) Close() error { return f.close() }

// ReadFile reads a small file; one of more than most bytes is a [usage.ErrSource].
func ReadFile(t Tree, path string, most int64) ([]byte, error) {
	f, err := t.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f.Sections, 0, most+1))
	switch {
	case err == nil && int64(len(text)) > most:
		return nil, usage.SourceErrorf("%s: is larger than %d bytes", path, most)
	case err != nil:
		return nil, Named(path, err)
	}
	return text, nil
}

// Begin reads the first n bytes of a file, or all if it has fewer.
func Begin(t Tree, path string, n int) ([]byte, error) {
	f, err := t.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	begin := make([]byte, n)
	n, err = f.ReadAt(begin, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return begin[:n], err
}

// Named adds the path to an error that does not name one.
func Named(path string, err error) error {
	if of := (*fs.PathError)(nil); errors.As(err, &of) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// Same reports whether was and now describe the same file, with nothing written to it
// in between.
func Same(was, now fs.FileInfo) bool {
	if old, ok := was.(info); ok {
		return old == now
	}
	return os.SameFile(was, now) && was.Size() == now.Size() && was.ModTime().Equal(now.ModTime())
}

// Stamp is what tells a file from what it was before it changed: its size, and the version
// that a store states, or when it was changed.
func Stamp(i fs.FileInfo) string {
	if of, ok := i.(info); ok {
		return fmt.Sprintf("%d bytes, version %q, sha256 %q", of.size, of.version, of.stated)
	}
	return fmt.Sprintf("%d bytes, changed %d", i.Size(), i.ModTime().UnixNano())
}

// CheckRegular returns a [usage.ErrSource] if a path is not a regular file.
func CheckRegular(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return usage.Source(&irregular{path, kindOf(info.Mode())})
}

// irregular is the error that a path is not a regular file.
type irregular struct{ path, kind string }

func (e *irregular) Error() string { return fmt.Sprintf("%s: is %s, want a file", e.path, e.kind) }

// IsIrregular reports whether an error says that a path is not a regular file.
func IsIrregular(err error) bool {
	_, ok := errors.AsType[*irregular](err)
	return ok
}

// kindOf names the kind of a path that is not a regular file.
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
