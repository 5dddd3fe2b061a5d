package stage

import (
	"errors"
	"os"
	"sync"
)

// Scratch is a file for what need not stay. It is gone when it is closed, as it is at
// the end of the run.
type Scratch struct{ *os.File }

// Scratches are those of a run. The zero value makes them where the system has its
// temporary files. It is safe for concurrent use.
type Scratches struct {
	dir string
	mu  sync.Mutex
	all []*Scratch
}

// New opens one.
func (s *Scratches) New() (*Scratch, error) {
	f, err := os.CreateTemp(s.dir, ".scratch-*")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name()) // where the system lets an open file go, it cannot be left behind
	one := &Scratch{f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, one)
	return one, nil
}

// Close closes all.
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

// Close closes the file, once, and removes it.
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
