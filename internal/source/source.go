// Package source is the files of a source as those who read it want them: by paths
// that messages may have, be they on disk or in a store that lists them.
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
)

// Source is a file or folder of a tree.
type Source struct {
	Tree
	Path string
}

// Of finds the files of a source for a run, whose context that is.
func Of(ctx context.Context, s files.Source) Source {
	if s == nil {
		s = files.Dir("")
	}
	if path, ok := s.(files.Dir); ok {
		return Path(string(path))
	}
	name := "."
	if part, ok := s.(interface{ Whole() (files.Source, string) }); ok { // of files.At
		s, name = part.Whole()
	}
	t := newListed(ctx, s)
	return Source{t, t.Join(t.root, name)}
}

// Path is a path on disk.
func Path(path string) Source { return Source{disk{}, path} }

// In is a folder of a source, "" for all of it.
func (s Source) In(folder string) Source {
	if folder == "" {
		return s
	}
	return Source{s.Tree, s.Join(s.Path, folder)}
}

// Tree is files and folders by paths: those of the system, or names in a store after
// what the store is called.
type Tree interface {
	// Join is the path of a name, a slash path, in a folder.
	Join(folder, name string) string
	// Split is the folder and the name of a file in it.
	Split(path string) (folder, name string)
	// Stat follows links.
	Stat(path string) (fs.FileInfo, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	// Open does not open a FIFO or a device: that is a [usage.ErrSource].
	Open(path string) (*File, error)
	// Unchanged reports whether a file is still what Stat or Open said of it.
	Unchanged(path string, was fs.FileInfo) (bool, error)
	// OnDisk: paths are the system's.
	OnDisk() bool
}

// File is a file that is open.
type File struct {
	io.ReaderAt
	Info     fs.FileInfo
	Sections io.ReaderAt // the same file for parts of it, many of which lie near each other
	OS       *os.File    // nil where it is none
	close    func() error
}

// Close closes it.
func (f *File) Close() error { return f.close() }

// ReadFile reads a small file; one that holds more than most bytes is a
// [usage.ErrSource].
func ReadFile(t Tree, path string, most int64) ([]byte, error) {
	f, err := t.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, most+1))
	switch {
	case err == nil && int64(len(text)) > most:
		return nil, usage.SourceErrorf("%s: is larger than %d bytes", path, most)
	case err != nil:
		return nil, named(path, err)
	}
	return text, nil
}

// Begin reads the beginning of a file, at most n bytes.
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

// named has an error that does not say what it is of say so.
func named(path string, err error) error {
	if of := (*fs.PathError)(nil); errors.As(err, &of) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// Same reports whether two looks at a path were at the same file, which nobody wrote
// to in between.
func Same(was, now fs.FileInfo) bool {
	if old, ok := was.(info); ok {
		return old == now
	}
	return os.SameFile(was, now) && was.Size() == now.Size() && was.ModTime().Equal(now.ModTime())
}

// CheckRegular is a [usage.ErrSource] for what is no file.
func CheckRegular(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return usage.Source(&irregular{path, kindOf(info.Mode())})
}

// irregular is the error of a path that is no file.
type irregular struct{ path, kind string }

func (e *irregular) Error() string { return fmt.Sprintf("%s: is %s, want a file", e.path, e.kind) }

// IsIrregular reports whether an error is that of a path that is no file.
func IsIrregular(err error) bool {
	_, ok := errors.AsType[*irregular](err)
	return ok
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
