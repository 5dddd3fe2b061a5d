package source

import (
	"io"

	"github.com/tensorpress/tensorpress/internal/watch"
)

// watched counts what is read of a file.
type watched struct {
	io.ReaderAt
	run *watch.Run
}

func (w watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.ReaderAt.ReadAt(p, off)
	w.run.Read(n)
	return n, err
}

// watched counts what is read of a file on disk.
func (f *File) watched(r *watch.Run) *File {
	if r != nil {
		f.ReaderAt, f.Sections, f.watch = watched{f.ReaderAt, r}, watched{f.Sections, r}, r
	}
	return f
}

// Copied counts bytes that the system has copied from the file.
func (f *File) Copied(n int) { f.watch.Read(n) }
