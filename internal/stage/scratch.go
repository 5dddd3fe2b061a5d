package stage

import (
	"errors"
	"os"
	"sync"
)

// Scratch is a temporary file, removed when it is closed, at the latest at the end of
// the run.
type Scratch struct{ *os.File }

// Scratches are the temporary files of a run. The zero value puts them into the
// system's folder for such files. It is safe for concurrent use.
type Scratches struct {
	dir string
	mu  sync.Mutex
	all []*Scratch
}

// New opens a temporary file.
func (s *Scratches) New() (*Scratch, error) {
	f, err := os.CreateTemp(s.dir, ".scratch-*")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name()) // where a system removes an open file, a killed run leaves none behind
	one := &Scratch{f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, one)
	return one, nil
}

// Close closes and removes all files.
func (s *Scratches) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, one := range s.all {
		err = errors.Join(err, one.Close())
	}
	s.all = nil
	return err
}

// Close closes and removes the file. Later calls do nothing.
func (s *Scratch) Close() error {
	err := s.File.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	if e := os.Remove(s.Name()); !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}
