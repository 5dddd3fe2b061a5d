package files

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// Dir is a path: a folder, a .safetensors file, or a weight index. It is read as the
// command reads SOURCE and written as it writes DEST: an output is made in a hidden
// place beside the path and put in place in one step.
type Dir string

func (d Dir) String() string { return string(d) }

// List returns the files below a folder, or the one file that the path is.
func (d Dir) List(ctx context.Context) (names []string, err error) {
	if info, err := os.Stat(string(d)); err != nil || !info.IsDir() {
		return []string{filepath.Base(string(d))}, err
	}
	return FS(os.DirFS(string(d))).List(ctx)
}

// Open opens a file of the folder, or the one that the path is.
func (d Dir) Open(ctx context.Context, name string) (File, error) {
	folder := string(d)
	if info, err := os.Stat(folder); err == nil && !info.IsDir() {
		folder = filepath.Dir(folder)
	}
	return FS(os.DirFS(folder)).Open(ctx, name)
}

// Begin opens a stage for the path. What is there is replaced if it is a file.
func (d Dir) Begin(_ context.Context, replace bool) (Output, error) {
	return stage.Open(stage.Output{Dest: string(d), Folder: stage.IsFolder(string(d)), Force: replace})
}

var _ interface {
	Source
	Sink
} = Dir("")

// fsys is a file system of Go's.
type fsys struct{ fs.FS }

// FS reads from one of Go's file systems, such as an [embed.FS] or an [os.DirFS]. Its
// files must support reading at an offset, or seeking; those in a zip archive do not.
// Use [At] to name one of the files, or a folder.
func FS(f fs.FS) Source { return fsys{f} }

func (fsys) String() string { return "fs" }

func (f fsys) List(ctx context.Context) (names []string, err error) {
	err = fs.WalkDir(f.FS, ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, name)
		}
		if err == nil {
			err = ctx.Err()
		}
		return err
	})
	return names, err
}

func (f fsys) Open(_ context.Context, name string) (File, error) {
	if info, err := fs.Stat(f.FS, name); err != nil || !info.Mode().IsRegular() { // to open a pipe may be to wait for ever
		if err == nil {
			err = usage.SourceErrorf("%s: is no ordinary file", name)
		}
		return nil, err
	}
	file, err := f.FS.Open(name)
	if err != nil {
		return nil, err
	}
	opened, err := newFSFile(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return opened, nil
}
