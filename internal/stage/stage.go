// Package stage hides outputs until they are complete: they are written to a hidden
// folder beside the destination, synced, and then moved into place in one step, or
// exchanged for an older output.
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
	"github.com/tensorpress/tensorpress/internal/watch"
)

// Stage is an output that is being written for a destination.
type Stage struct {
	output Output
	target
	name    string // path of hidden files and folders, without their ending
	tmp     string // folder of the files until Commit, "" once it is gone
	marks   []io.Closer
	made    []string // folders above the destination that this run made
	files   []*os.File
	parking parking
	notes   []string
	scratch Scratches
	// undo are the steps back from Place, the last first, and replacedAt is where the folder
	// is that it has replaced.
	undo       []func() error
	replacedAt string
}

// IsFolder reports by its name whether an output is a folder.
func IsFolder(dest string) bool { return filepath.Ext(filepath.Clean(dest)) != ".safetensors" }

// Open checks the destination as [Check] does and makes the hidden folder.
func Open(o Output) (*Stage, error) {
	t, err := check(o)
	if err != nil {
		return nil, err
	}
	s := &Stage{output: o, target: t, name: hiddenName(t.path), notes: append(leftovers(filepath.Dir(t.path)), keptNote(t.path)...)}
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
		s.mark(t.path, s.name+replaced) // the lock also keeps the system from reusing its identity for another file
		if err := s.tryMove(); err != nil {
			return nil, errors.Join(err, s.Abort())
		}
	}
	return s, nil
}

// tryMove asks the system, before any work is done, whether what will be replaced can
// be moved. It tries to move it over a folder that is not empty. That always fails and
// changes nothing, but it fails in a particular way if the system would not move it
// anywhere.
func (s *Stage) tryMove() error {
	inside := filepath.Join(s.tmp, "full")
	if err := os.Mkdir(inside, 0o777); err != nil {
		return s.outside(err)
	}
	return errors.Join(s.refused(s.tmp), s.outside(os.Remove(inside)))
}

// refused tries that over a folder that is not empty.
func (s *Stage) refused(full string) error {
	err := system.refuses(s.path, full)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &fs.PathError{Op: "replace", Path: s.output.Dest, Err: err}
	case err != nil:
		return usage.Errorf("%s cannot be replaced here (%w): remove it, or name another destination", s.output.Dest, err)
	}
	return nil
}

// mark locks what is hidden at path, or what will be hidden at later. leftovers reports
// only what has an ended run's lock; it ignores what could not be locked.
func (s *Stage) mark(path, later string) {
	if one, err := lock(path, later); err == nil {
		s.marks = append(s.marks, one)
	}
}

// makeParents makes a folder and those above it, and remembers which it made.
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

// removeParents removes the folders that makeParents made, if they are empty.
func (s *Stage) removeParents() error {
	for len(s.made) > 0 {
		last := s.made[len(s.made)-1]
		s.made = s.made[:len(s.made)-1]
		os.Remove(last)
	}
	return nil
}

// outside turns an error about the hidden folder into one about the folder in which the
// destination lies.
func (s *Stage) outside(err error) error {
	folder := filepath.Dir(s.output.Dest)
	if resolve(folder) != filepath.Dir(s.path) {
		folder = filepath.Dir(s.path) // Dest lies behind a link
	}
	var of *fs.PathError
	if !errors.As(err, &of) {
		return err
	}
	err = &fs.PathError{Op: "write to folder", Path: folder, Err: of.Err}
	if _, none := os.Stat(folder); errors.Is(none, fs.ErrNotExist) {
		return fmt.Errorf("%w: make the folder first (`mkdir -p`), or name another destination", err)
	}
	return err
}

// Named turns an error that names a staged file into one that names the file at the
// destination.
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

// Notes returns what a user should know: what killed runs have left beside the
// destination, and what did not go as intended.
func (s *Stage) Notes() []string { return s.notes }

// Create adds a file to write to. It is an *os.File unless too many files are open.
// Commit syncs and closes it.
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
	if err := local(name); err != nil {
		return nil, err
	}
	path := s.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
}

// local refuses a name that leads out of the output, or to a device: one of a store's may
// have what only some systems take for separators and drives.
func local(name string) error {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return usage.SourceErrorf("%q is no name of a file in a folder here: rename it in the source, or leave it out", name)
	}
	return nil
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

// CopyFile adds a copy of an ordinary file. An error that the file itself causes is a
// [usage.ErrSource].
func (s *Stage) CopyFile(ctx context.Context, name, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // opening a FIFO may wait for ever
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

// copyAll copies a file; it is an error if the file changes meanwhile.
func copyAll(ctx context.Context, to, from *os.File, info fs.FileInfo) error {
	const step = 8 << 20 // an interrupt is noticed after each step
	done, whole := int64(0), false
	for !whole && done <= info.Size() {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(to, from, step)
		watch.Of(ctx).Read(int(n))
		watch.Of(ctx).Wrote(int(n))
		watch.Of(ctx).Did(n)
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

// heard runs do, which cannot be interrupted, but waits for it only until the context
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

// Path returns where a file or folder of the output is until Commit; "" is the output
// folder itself.
func (s *Stage) Path(name string) string { return filepath.Join(s.tmp, filepath.FromSlash(name)) }

// Scratch opens a temporary file beside the output. It is safe for concurrent use.
func (s *Stage) Scratch() (*Scratch, error) { return s.scratch.New() }

// Free returns how many bytes can still be written beside the destination, -1 if the
// system does not tell.
func (s *Stage) Free() int64 { return free(s.tmp) }

func (s *Stage) close() error {
	err := errors.Join(s.scratch.Close(), s.parking.close())
	for _, f := range s.files {
		err = errors.Join(err, f.Close())
	}
	s.files = nil
	return err
}

// Abort removes everything that the stage made. After Commit it does nothing.
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

// remove removes the hidden folder and releases its lock.
func (s *Stage) remove() error {
	tmp := s.tmp
	s.tmp = ""
	err := system.removeAll(tmp)
	unmarked := s.unmark()
	if err != nil {
		err = system.removeAll(tmp) // the first try may have failed for too many open files
	}
	return errors.Join(err, unmarked)
}

// Free returns the bytes that are free for files of a folder, -1 if that is not known.
func Free(folder string) int64 { return free(folder) }
