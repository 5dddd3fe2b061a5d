// Package stage keeps outputs out of sight until they are whole: they are
// written to a hidden folder beside the destination, synced, and renamed.
package stage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"sync"
)

// Stage is a set of files on their way to a destination.
type Stage struct {
	dest   string
	folder bool // dest is to be a folder with all files; else a file among them
	tmp    string
	files  []*os.File

	mu      sync.Mutex
	scratch []*Scratch
}

// Open prepares a destination: a folder, or a file in an existing folder.
func Open(dest string, folder bool) (*Stage, error) {
	dest = filepath.Clean(dest)
	s := &Stage{dest: dest, folder: folder}
	s.tmp = filepath.Join(filepath.Dir(dest), fmt.Sprintf(".%s.%08x.partial", filepath.Base(dest), rand.Uint32()))
	if err := os.Mkdir(s.tmp, 0o777); err != nil {
		return nil, err
	}
	return s, nil
}

// Create adds a file to be filled. Commit syncs and closes it.
func (s *Stage) Create(name string) (*os.File, error) {
	f, err := s.create(name)
	if err == nil {
		s.files = append(s.files, f)
	}
	return f, err
}

func (s *Stage) create(name string) (*os.File, error) {
	path := filepath.Join(s.tmp, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
}

// WriteFile adds a file with that content.
func (s *Stage) WriteFile(name string, data []byte) error {
	return s.add(name, bytes.NewReader(data))
}

// CopyFile adds a copy of another file.
func (s *Stage) CopyFile(name, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	return s.add(name, src)
}

func (s *Stage) add(name string, content io.Reader) error {
	f, err := s.create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Sync(), f.Close())
}

// Folder is a folder of a stage.
type Folder struct {
	stage *Stage
	name  string
}

// Folder returns the folder of that name, "" for the stage itself.
func (s *Stage) Folder(name string) Folder { return Folder{s, name} }

// Create is that of the stage.
func (f Folder) Create(name string) (*os.File, error) { return f.stage.Create(path.Join(f.name, name)) }

// WriteFile is that of the stage.
func (f Folder) WriteFile(name string, data []byte) error {
	return f.stage.WriteFile(path.Join(f.name, name), data)
}

// CopyFile is that of the stage.
func (f Folder) CopyFile(name, from string) error {
	return f.stage.CopyFile(path.Join(f.name, name), from)
}

// Path is where a file or folder is until Commit, "" for the stage itself.
func (s *Stage) Path(name string) string { return filepath.Join(s.tmp, filepath.FromSlash(name)) }

// Scratch is a file for what need not stay. It is gone when it is closed, as it is
// at the end of the stage.
type Scratch struct{ *os.File }

// Scratch opens one. It is safe for concurrent use.
func (s *Stage) Scratch() (*Scratch, error) {
	f, err := os.CreateTemp(s.tmp, ".scratch-*")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name()) // where the system lets an open file go, it cannot be left behind
	one := &Scratch{f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scratch = append(s.scratch, one)
	return one, nil
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

// Free returns the bytes that can still be written beside the destination,
// -1 where the system does not tell.
func (s *Stage) Free() int64 { return free(s.tmp) }

// Commit moves everything into place. After an error nothing new is there.
func (s *Stage) Commit() error {
	if err := s.sync(); err != nil {
		return err
	}
	if s.folder {
		return s.replaceFolder()
	}
	return s.moveFiles()
}

func (s *Stage) sync() error {
	for _, f := range s.files {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return s.close()
}

func (s *Stage) endScratch() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, one := range s.scratch {
		err = errors.Join(err, one.Close())
	}
	s.scratch = nil
	return err
}

func (s *Stage) close() error {
	err := s.endScratch()
	for _, f := range s.files {
		err = errors.Join(err, f.Close())
	}
	s.files = nil
	return err
}

// replaceFolder puts an old destination aside until the new one is in place.
func (s *Stage) replaceFolder() error {
	old := s.tmp + ".old"
	err := os.Rename(s.dest, old)
	replaced := err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(s.tmp, s.dest); err != nil {
		if replaced {
			err = errors.Join(err, os.Rename(old, s.dest))
		}
		return err
	}
	s.tmp = ""
	if replaced {
		return os.RemoveAll(old)
	}
	return nil
}

// moveFiles moves the destination last: with it the output is there. What the
// others replace is put aside until then.
func (s *Stage) moveFiles() error {
	names, err := os.ReadDir(s.tmp)
	if err != nil {
		return err
	}
	base, old := filepath.Base(s.dest), s.tmp+".old"
	var moved []string
	for _, n := range names {
		if n.Name() == base {
			continue
		}
		moved = append(moved, n.Name())
		if err = s.replaceFile(n.Name(), old); err != nil {
			break
		}
	}
	if err == nil {
		err = move(s.tmp, filepath.Dir(s.dest), base)
	}
	if err != nil {
		return errors.Join(err, s.moveBack(moved, old))
	}
	return errors.Join(s.remove(), os.RemoveAll(old))
}

// replaceFile moves a file into place and one that is there into old.
func (s *Stage) replaceFile(name, old string) error {
	dir := filepath.Dir(s.dest)
	if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
		if err := errors.Join(os.MkdirAll(old, 0o777), move(dir, old, name)); err != nil {
			return err
		}
	}
	return move(s.tmp, dir, name)
}

// moveBack undoes replaceFile, however far it came.
func (s *Stage) moveBack(names []string, old string) error {
	dir := filepath.Dir(s.dest)
	var err error
	for _, name := range names {
		if _, e := os.Lstat(filepath.Join(s.tmp, name)); e != nil {
			err = errors.Join(err, move(dir, s.tmp, name))
		}
		if _, e := os.Lstat(filepath.Join(old, name)); e == nil {
			err = errors.Join(err, move(old, dir, name))
		}
	}
	if e := os.Remove(old); !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

func move(from, to, name string) error {
	return os.Rename(filepath.Join(from, name), filepath.Join(to, name))
}

func (s *Stage) remove() error {
	tmp := s.tmp
	s.tmp = ""
	return os.RemoveAll(tmp)
}

// Abort leaves nothing behind. After Commit it does nothing.
func (s *Stage) Abort() error {
	if s.tmp == "" {
		return nil
	}
	return errors.Join(s.close(), s.remove())
}
