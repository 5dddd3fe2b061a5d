// Package stage keeps outputs out of sight until they are whole: they are
// written to a hidden folder beside the destination, synced, and put in place in one
// step, where nothing is or in exchange for an older output.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// Stage is a set of files on their way to a destination.
type Stage struct {
	output Output
	target
	name    string // of what is hidden, without its ending
	tmp     string // where files are until Commit, "" once that is gone
	marks   []io.Closer
	made    []string // folders that the destination is to lie in
	files   []*os.File
	parking parking
	notes   []string
	scratch Scratches
}

// IsFolder reports whether an output is a folder, by its name.
func IsFolder(dest string) bool { return filepath.Ext(filepath.Clean(dest)) != ".safetensors" }

// Open prepares a destination once it is checked.
func Open(o Output) (*Stage, error) {
	t, err := check(o)
	if err != nil {
		return nil, err
	}
	s := &Stage{output: o, target: t, name: hiddenName(t.path), notes: leftovers(filepath.Dir(t.path))}
	if o.Parents {
		if err := s.makeParents(filepath.Dir(t.path)); err != nil {
			return nil, errors.Join(err, s.removeParents())
		}
	}
	tmp := s.name + unfinished
	if err := os.Mkdir(tmp, 0o777); err != nil {
		return nil, errors.Join(s.outside(err), s.removeParents())
	}
	s.tmp, s.scratch.dir = tmp, tmp
	s.mark(tmp, tmp)
	if t.old != nil {
		s.mark(t.path, s.name+replaced) // nor can another come to look like it meanwhile
		if err := s.tryMove(); err != nil {
			return nil, errors.Join(err, s.Abort())
		}
	}
	return s, nil
}

// tryMove asks the system, before any work, whether it lets go of what is to be
// replaced: it refuses to put that in the place of a folder that is not empty, which
// changes nothing, and says so where it would not move it anywhere.
func (s *Stage) tryMove() error {
	inside := filepath.Join(s.tmp, "full")
	if err := os.Mkdir(inside, 0o777); err != nil {
		return s.outside(err)
	}
	err := system.refuses(s.path, s.tmp)
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = &fs.PathError{Op: "replace", Path: s.output.Dest, Err: err}
	case err != nil:
		err = usage.Errorf("%s cannot be replaced here (%w): remove it, or name another destination", s.output.Dest, err)
	}
	return errors.Join(err, s.outside(os.Remove(inside)))
}

// mark marks what is, or will be, hidden. Without a mark nobody says that it was left
// behind.
func (s *Stage) mark(path, later string) {
	if one, err := lock(path, later); err == nil {
		s.marks = append(s.marks, one)
	}
}

// makeParents makes a folder and those above it, and knows which.
func (s *Stage) makeParents(folder string) error {
	if _, err := os.Stat(folder); err == nil || folder == filepath.Dir(folder) {
		return err
	}
	if err := s.makeParents(filepath.Dir(folder)); err != nil {
		return err
	}
	err := os.Mkdir(folder, 0o777)
	if err == nil {
		s.made = append(s.made, folder)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// removeParents removes those that nothing else has come to lie in.
func (s *Stage) removeParents() error {
	for len(s.made) > 0 {
		last := s.made[len(s.made)-1]
		s.made = s.made[:len(s.made)-1]
		os.Remove(last)
	}
	return nil
}

// outside makes an error about the hidden folder one about where it was to be.
func (s *Stage) outside(err error) error {
	folder := filepath.Dir(s.output.Dest)
	if resolve(folder) != filepath.Dir(s.path) {
		folder = filepath.Dir(s.path) // behind a link
	}
	var of *fs.PathError
	if errors.As(err, &of) {
		return &fs.PathError{Op: "write to folder", Path: folder, Err: of.Err}
	}
	return err
}

// Named makes an error that names a staged file one that names the file that it was
// to be.
func (s *Stage) Named(err error) error {
	hidden := s.name + unfinished
	if err == nil || !strings.Contains(err.Error(), hidden) {
		return err
	}
	place := s.output.Dest
	if !s.output.Folder {
		place = filepath.Dir(place)
	}
	return &namedError{err, strings.ReplaceAll(err.Error(), hidden, place)}
}

type namedError struct {
	err  error
	text string
}

func (e *namedError) Error() string { return e.text }
func (e *namedError) Unwrap() error { return e.err }

// Notes are what a user should know: what killed runs have left where the output
// lies, and what is otherwise than it was to be.
func (s *Stage) Notes() []string { return s.notes }

// Create adds a file to be filled, an *os.File as long as there are not too many of
// them. Commit syncs and closes it.
func (s *Stage) Create(name string, _ int64) (io.WriterAt, error) {
	f, err := s.create(name)
	if err != nil {
		return nil, err
	}
	if len(s.files) >= s.parking.apart() {
		return s.parking.park(f)
	}
	s.files = append(s.files, f)
	return f, nil
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
	f, err := s.create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// CopyFile adds a copy of an ordinary file. An error that is that file's own fault is
// a [usage.ErrSource].
func (s *Stage) CopyFile(ctx context.Context, name, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // to open one may be to wait for ever
		return usage.SourceErrorf("%s: is no ordinary file", from)
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := s.create(name)
	if err != nil {
		return err
	}
	err = copyAll(ctx, f, src, info)
	if err == nil {
		err = heard(ctx, f.Sync)
	}
	return errors.Join(err, f.Close())
}

// copyAll copies a file that stays as it is meanwhile.
func copyAll(ctx context.Context, to, from *os.File, info fs.FileInfo) error {
	const step = 8 << 20 // an interrupt is heard in between
	done, whole := int64(0), false
	for !whole && done <= info.Size() {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(to, from, step)
		if whole = err == io.EOF; err != nil && !whole {
			return err
		}
		done += n
	}
	now, err := from.Stat()
	if err != nil {
		return err
	}
	if done != info.Size() || !os.SameFile(now, info) || !now.ModTime().Equal(info.ModTime()) {
		return usage.SourceErrorf("%s: changed while it was copied", from.Name())
	}
	return nil
}

// heard waits for what cannot be interrupted, and no longer than until the context
// ends.
func heard(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Path is where a file or folder is until Commit, "" for the stage itself.
func (s *Stage) Path(name string) string { return filepath.Join(s.tmp, filepath.FromSlash(name)) }

// Scratch opens a file for what need not stay. It is safe for concurrent use.
func (s *Stage) Scratch() (*Scratch, error) { return s.scratch.New() }

// Free returns the bytes that can still be written beside the destination,
// -1 where the system does not tell.
func (s *Stage) Free() int64 { return free(s.tmp) }

func (s *Stage) close() error {
	err := errors.Join(s.scratch.Close(), s.parking.close())
	for _, f := range s.files {
		err = errors.Join(err, f.Close())
	}
	s.files = nil
	return err
}

// Abort leaves nothing behind. After Commit it does nothing.
func (s *Stage) Abort() error {
	if s.tmp == "" {
		return nil
	}
	tmp := s.tmp
	err := errors.Join(s.close(), s.remove())
	if _, there := os.Lstat(tmp); there == nil && err != nil {
		err = fmt.Errorf("%s is left behind: delete it (%w)", tmp, err)
	}
	return errors.Join(err, s.removeParents())
}

// remove removes the hidden folder and its mark.
func (s *Stage) remove() error {
	tmp := s.tmp
	s.tmp = ""
	err := system.removeAll(tmp)
	unmarked := s.unmark()
	if err != nil {
		err = system.removeAll(tmp) // there may have been too many open files
	}
	return errors.Join(err, unmarked)
}
