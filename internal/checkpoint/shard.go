package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Shard is a file of weights. It may be parked, that is, closed until it is read again,
// so that a checkpoint may have more shards than the system lets be open.
type Shard struct {
	tree   source.Tree
	path   string
	header *safetensors.Header // without its tensors once Checkpoint.Tensors has them
	info   fs.FileInfo

	mu     sync.RWMutex // held for reading while file is in use
	file   *source.File // nil while parked and once closed
	closed bool
}

// newShard opens a file and reads its header.
func newShard(t source.Tree, path string) (*Shard, error) {
	f, err := t.Open(path)
	if source.IsIrregular(err) {
		err = usage.SourceErrorf("%s: is a FIFO or a device, want a file", path)
	}
	if err != nil {
		return nil, err
	}
	s := &Shard{tree: t, path: path, info: f.Info, file: f}
	if f.Info.IsDir() {
		err = usage.SourceErrorf("is a folder, want a file")
	} else {
		s.header, err = safetensors.ReadHeader(f, f.Info.Size())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return s, nil
}

// readSection fills p from the body of t, beginning off bytes into it.
func (s *Shard) readSection(t safetensors.Tensor, p []byte, off int64) error {
	at, err := s.header.Section(t, len(p), off)
	if err == nil {
		err = s.use(func(f *source.File) error { return readFull(f.Sections, p, at) })
	}
	return s.named(t, err)
}

func (s *Shard) named(t safetensors.Tensor, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: tensor %.200q: %w", s.path, t.Name, err)
}

// readFull fills p from off. A reader may report io.EOF along with the last byte.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("got %d of %d bytes at %d: %w", n, len(p), off, io.ErrUnexpectedEOF)
	}
	return err
}

// copySection copies n bytes of from, beginning off bytes into it, to the same place
// in tensor t of another file.
func (s *Shard) copySection(from safetensors.Tensor, to *bodies.Writer, t safetensors.Tensor, off int64, n int) error {
	at, err := s.header.Section(from, n, off)
	if err != nil {
		return s.named(from, err)
	}
	if err := s.use(func(f *source.File) error {
		if f.OS == nil {
			return nil
		}
		done, err := to.Copy(t, off, n, f.OS, at)
		f.Copied(done)
		off, n = off+int64(done), n-done
		return err
	}); err != nil {
		return err
	}
	buffer := make([]byte, min(n, 256<<10))
	for n > 0 {
		some := buffer[:min(n, len(buffer))]
		if err := s.readSection(from, some, off); err != nil {
			return err
		}
		if err := to.WriteSection(t, some, off); err != nil {
			return err
		}
		off, n = off+int64(len(some)), n-len(some)
	}
	return nil
}

// use calls do with the open file; it opens a parked one first.
func (s *Shard) use(do func(*source.File) error) error {
	for {
		s.mu.RLock()
		if s.file != nil {
			defer s.mu.RUnlock()
			return do(s.file)
		}
		s.mu.RUnlock()
		if err := s.reopen(); err != nil {
			return err
		}
	}
}

// reopen opens a parked file and makes sure that it has not changed.
func (s *Shard) reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return os.ErrClosed
	case s.file != nil:
		return nil
	}
	f, err := s.tree.Open(s.path)
	if err != nil {
		return err
	}
	if !source.Same(s.info, f.Info) {
		return errors.Join(usage.SourceErrorf("file changed after its header was read"), f.Close())
	}
	s.file = f
	return nil
}

// park waits for reads to end and closes the file until it is read again.
func (s *Shard) park() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// close waits for reads to end and closes the file. Later calls do nothing.
func (s *Shard) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.park()
}
