package files

import (
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// fsFile is an open file of a file system.
type fsFile struct {
	io.ReaderAt
	fs.File
	info fs.FileInfo
}

func newFSFile(f fs.File) (*fsFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch r := f.(type) {
	case io.ReaderAt:
		return &fsFile{r, f, info}, nil
	case io.ReadSeeker:
		return &fsFile{&seeking{r: r}, f, info}, nil
	}
	return nil, usage.SourceErrorf("%s: a %T can be read from its beginning alone, want a file to read at an offset: unpack it first", info.Name(), f)
}

func (f *fsFile) Size() int64 { return f.info.Size() }

// Version is when the file was changed.
func (f *fsFile) Version() string { return f.info.ModTime().Format(time.RFC3339Nano) }

// seeking reads at an offset by way of moving there.
type seeking struct {
	mu sync.Mutex
	r  io.ReadSeeker
}

func (s *seeking) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.r.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(s.r, p)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}
