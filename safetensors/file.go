package safetensors

import (
	"fmt"
	"io"
	"os"
)

// File is a file whose header was read. It is safe for concurrent use.
type File struct {
	path   string // "" for a reader of NewFile
	r      io.ReaderAt
	header *Header
}

// Open opens a file and reads its header. Errors name the path. The error is
// [ErrFormat] if the file is not a valid safetensors file.
func Open(path string) (*File, error) {
	file, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	f := &File{path: path, r: file}
	if err == nil && info.IsDir() {
		err = formatErrorf("is a folder, want a file")
	}
	if err == nil {
		f.header, err = ReadHeader(file, info.Size())
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// NewFile reads the header of a file of the given size in bytes, wherever it lies.
// Errors are those of [ReadHeader].
func NewFile(r io.ReaderAt, size int64) (*File, error) {
	h, err := ReadHeader(r, size)
	if err != nil {
		return nil, err
	}
	return &File{r: r, header: h}, nil
}

// openRegular refuses to open a FIFO, which would wait for its writer, or a device.
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

// Header returns the file's header.
func (f *File) Header() *Header { return f.header }

// ReadSection fills p from the body of t, beginning off bytes into it. Errors
// name the file, if it has a path, and the tensor: [ErrRange] if the section does not
// lie within t and t within the file, [io.ErrUnexpectedEOF] if the file has become
// shorter.
func (f *File) ReadSection(t Tensor, p []byte, off int64) error {
	at, err := f.header.Section(t, len(p), off)
	if err == nil {
		err = readFull(f.r, p, at)
	}
	switch {
	case err == nil:
		return nil
	case f.path == "":
		return fmt.Errorf("tensor %s: %w", quoted(t.Name), err)
	}
	return fmt.Errorf("%s: tensor %s: %w", f.path, quoted(t.Name), err)
}

// Close closes a file of [Open]. It does nothing to a reader of [NewFile].
func (f *File) Close() error {
	if file, ok := f.r.(*os.File); ok && f.path != "" {
		return file.Close()
	}
	return nil
}
