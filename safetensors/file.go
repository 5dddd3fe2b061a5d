package safetensors

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// File is an open file. It is safe for concurrent use.
type File struct {
	path   string
	header *Header
	info   os.FileInfo

	mu     sync.RWMutex // held for reading while file is in use
	file   *prompt      // nil while parked and once closed
	closed bool
}

// Open opens a file and reads its header. Errors name the path; a file that is
// not as it should be is an [ErrFormat].
func Open(path string) (*File, error) {
	file, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, file: newPrompt(file)}
	if err := f.load(); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// openRegular does not open a FIFO, which would wait for its writer, or a device.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fmt.Errorf("%s: %w", path, formatErrorf("is a FIFO or a device, want a file"))
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

func (f *File) load() (err error) {
	if f.info, err = f.file.Stat(); err != nil {
		return err
	}
	if f.info.IsDir() {
		return formatErrorf("is a folder, want a file")
	}
	f.header, err = ReadHeader(f.file.File, f.info.Size()) // often all that is read
	return err
}

// Header is what the file says about its tensors.
func (f *File) Header() *Header { return f.header }

// Forget lets go of the header's tensors, for a program that has taken them over.
// Sections are still read. It must not be called while others look at the header.
func (f *File) Forget() {
	f.header = &Header{Metadata: f.header.Metadata, DataStart: f.header.DataStart}
}

// Path is the path that the file was opened with.
func (f *File) Path() string { return f.path }

// ReadSection fills p from the body of t, beginning off bytes into it. Errors
// name the file and the tensor: [ErrRange] if the section does not lie within t
// and t within the file, [io.ErrUnexpectedEOF] if the file has become shorter.
func (f *File) ReadSection(t Tensor, p []byte, off int64) error {
	if err := f.readSection(t, p, off); err != nil {
		return fmt.Errorf("%s: tensor %s: %w", f.path, quoted(t.Name), err)
	}
	return nil
}

func (f *File) readSection(t Tensor, p []byte, off int64) error {
	place, err := f.place(t, len(p), off)
	if err != nil {
		return err
	}
	if err := f.acquire(); err != nil {
		return err
	}
	defer f.mu.RUnlock()
	return readFull(f.file, p, place)
}

// place returns where in the file n bytes lie that begin off bytes into t.
func (f *File) place(t Tensor, n int, off int64) (int64, error) {
	if size := f.info.Size() - f.header.DataStart; t.Offset < 0 || t.Size < 0 || t.Offset > size-t.Size {
		return 0, errorOf(ErrRange, "%d bytes at %d are not in the data section of %d bytes", t.Size, t.Offset, size)
	}
	return f.header.DataStart + t.Offset + off, checkSection(t, n, off)
}

// checkSection makes sure that n bytes at off lie within t.
func checkSection(t Tensor, n int, off int64) error {
	if off < 0 || off > t.Size || int64(n) > t.Size-off {
		return errorOf(ErrRange, "section of %d bytes at %d goes past its %d bytes", n, off, t.Size)
	}
	return nil
}

// acquire returns with the file open and locked for reading.
func (f *File) acquire() error {
	for {
		f.mu.RLock()
		if f.file != nil {
			return nil
		}
		f.mu.RUnlock()
		if err := f.reopen(); err != nil {
			return err
		}
	}
}

// reopen opens a parked file and makes sure that it is still the same.
func (f *File) reopen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return os.ErrClosed
	case f.file != nil:
		return nil
	}
	file, err := openRegular(f.path)
	if err != nil {
		return err
	}
	if err := f.checkSame(file.Stat()); err != nil {
		file.Close()
		return err
	}
	f.file = newPrompt(file)
	return nil
}

// Unchanged fails with [ErrFormat] if the file at the path is not the one whose
// header was read, or was written to since.
func (f *File) Unchanged() error {
	if err := f.checkSame(os.Stat(f.path)); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

func (f *File) checkSame(info os.FileInfo, err error) error {
	if err != nil {
		return err
	}
	if !os.SameFile(info, f.info) || info.Size() != f.info.Size() || !info.ModTime().Equal(f.info.ModTime()) {
		return formatErrorf("file changed after its header was read")
	}
	return nil
}

// Park closes the file for the operating system, after reads under way. The
// next ReadSection opens it again, and fails with [ErrFormat] if it changed in
// between. It lets a program hold more files than it may have descriptors.
func (f *File) Park() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// Close closes the file, after reads under way. Later calls do nothing.
func (f *File) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	return f.Park()
}

var _ io.Closer = (*File)(nil)
