package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tensorpress/tensorpress/internal/prompt"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// disk is the operating system's file tree, of which is counted what is read.
type disk struct{ watch *watch.Run }

func (disk) Join(folder, name string) string { return filepath.Join(folder, filepath.FromSlash(name)) }

func (disk) Split(path string) (folder, name string) {
	folder, _ = filepath.Split(path)
	return folder, filepath.Base(path)
}

func (disk) Stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

func (disk) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }

func (disk) OnDisk() bool { return true }

// Open opens a file. It opens a folder as well, and the system then refuses to read it.
func (d disk) Open(path string) (*File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = CheckRegular(path, info)
	}
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return (&File{ReaderAt: file, Info: info, Sections: prompt.New(file), OS: file, close: file.Close}).watched(d.watch), nil
}

// Unchanged reports whether path is the same file, with the same size and time of
// writing.
func (disk) Unchanged(path string, was fs.FileInfo) (bool, error) {
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && Same(was, now), err
}
