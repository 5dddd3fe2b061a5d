package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// Commit moves everything into place. After an error nothing new is there. If somebody
// else has created or changed the destination since Open, theirs stays and Commit
// fails.
func (s *Stage) Commit(ctx context.Context) error {
	if err := s.Prepare(ctx); err != nil {
		return err
	}
	if err := s.Place(); err != nil {
		return err
	}
	return s.Settle()
}

// Prepare does what takes long of Commit: all that was written is on the disk after it.
func (s *Stage) Prepare(ctx context.Context) error {
	err := heard(ctx, s.syncing())
	if err == nil {
		err = s.close()
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// Place moves everything into place after Prepare, and keeps what it has replaced until
// Settle. After an error nothing new is there.
func (s *Stage) Place() error {
	if _, err := os.Lstat(s.path); errors.Is(err, fs.ErrNotExist) {
		s.old = nil // somebody removed the old output
	}
	if err := s.again(s.output, s.path); err != nil {
		return err
	}
	reached("whole")
	place := s.placeFiles
	if s.output.Folder {
		place = s.placeFolder
	}
	if err := place(); err != nil {
		return errors.Join(err, s.TakeBack())
	}
	return nil
}

// TakeBack undoes Place: what was there is there again, and the new output is hidden.
func (s *Stage) TakeBack() (err error) {
	for _, back := range slices.Backward(s.undo) {
		err = errors.Join(err, back())
	}
	s.undo = nil
	return err
}

// Settle ends a Commit after Place: what was replaced is removed.
func (s *Stage) Settle() error {
	s.undo = nil
	s.arrived()
	if s.output.Folder && s.old == nil {
		s.tmp, s.made = "", nil
		return s.unmark()
	}
	if s.output.Folder {
		s.tmp = s.replacedAt
		if aside := s.name + replaced; s.tmp != aside && os.Rename(s.tmp, aside) == nil {
			s.tmp = aside // named as an old output, in case the run is killed here
		}
	}
	s.made = nil
	reached("to be removed")
	s.removeOld()
	return nil
}

// syncing returns a function that syncs all files and their folders to disk. It may
// still be running when the stage is aborted.
func (s *Stage) syncing() func() error {
	files, parked, tmp := s.files, s.parking.all, s.tmp
	return func() error {
		for _, f := range files {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		for _, f := range parked {
			if err := f.sync(); err != nil {
				return err
			}
		}
		return filepath.WalkDir(tmp, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return err
			}
			return syncFolder(path)
		})
	}
}

func (s *Stage) placeFolder() (err error) {
	from := s.tmp
	if s.old == nil {
		if err := s.arrive(from, s.path); err != nil {
			return err
		}
		s.undo = append(s.undo, func() error { return os.Rename(s.path, from) })
		return nil
	}
	if s.replacedAt, err = s.replace(from, s.path); err != nil {
		return err
	}
	s.undo = append(s.undo, func() error { return s.giveBack(s.replacedAt, from, s.path) })
	return nil
}

// arrive moves a file or folder to a place where nothing must be.
func (s *Stage) arrive(from, to string) error {
	err := renameNew(from, to)
	if errors.Is(err, fs.ErrExist) {
		return appeared(s.output)
	}
	return err
}

// replace exchanges the destination with the new output, then checks the old one once
// more, now that nobody can change it any more. It returns where the old one is.
func (s *Stage) replace(from, to string) (old string, err error) {
	if old, err = exchange(from, to, s.name+replaced, s.old); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = errors.Join(appeared(s.output), err)
		}
		return "", err
	}
	reached("exchanged")
	if err := s.again(s.output, old); err != nil {
		return "", errors.Join(err, s.giveBack(old, from, to))
	}
	return old, nil
}

// giveBack undoes replace: it moves the old output from path old back to the
// destination, and the new one back to from.
func (s *Stage) giveBack(old, from, to string) error {
	mine, err := os.Lstat(to)
	now := from
	switch {
	case err == nil:
		now, err = exchange(old, to, s.name+".new", mine)
	case errors.Is(err, fs.ErrNotExist):
		err = renameNew(old, to)
	}
	if err != nil {
		s.tmp = "" // keep what lies there: it may be the user's
		return fmt.Errorf("%s: what was there is %s now: %w", s.output.Dest, old, err)
	}
	if now != from {
		return os.Rename(now, from)
	}
	return nil
}

// arrived syncs the new names to disk, before an old output is removed.
func (s *Stage) arrived() {
	if err := syncFolder(filepath.Dir(s.path)); err != nil {
		s.notes = append(s.notes, fmt.Sprintf("%s is in place, but the system did not say that it would outlast a power failure: %v", s.output.Dest, err))
	}
}

// removeOld removes what was replaced. A failure is only noted: the new output is
// complete without that.
func (s *Stage) removeOld() {
	old, aside := s.tmp, s.name+replaced
	err := s.remove()
	if old != aside {
		err = errors.Join(err, system.removeAll(aside))
	}
	if err != nil {
		s.notes = append(s.notes, fmt.Sprintf("what %s has replaced could not be removed whole: delete %s (%v)", s.output.Dest, old, err))
	}
}

// unmark releases the locks that show that this run is alive.
func (s *Stage) unmark() (err error) {
	for _, one := range s.marks {
		err = errors.Join(err, one.Close())
	}
	s.marks = nil
	return err
}

// placeFiles moves the destination file first, which settles any race with another
// run, and then the files beside it. Replaced files stay in the hidden folder until all
// is done.
func (s *Stage) placeFiles() error {
	from := filepath.Join(s.tmp, filepath.Base(s.output.Dest)) // s.path may have another name, if Dest is a link
	err := s.putDest(from)
	for _, b := range s.output.Beside {
		if err == nil {
			err = s.putBeside(b)
		}
	}
	return err
}

func (s *Stage) putDest(from string) error {
	if s.old == nil {
		if err := s.arrive(from, s.path); err != nil {
			return err
		}
		s.undo = append(s.undo, func() error { return os.Rename(s.path, from) })
		return nil
	}
	old, err := s.replace(from, s.path)
	if err != nil {
		return err
	}
	if old != from && os.Rename(old, from) == nil {
		old = from
	}
	s.undo = append(s.undo, func() error { return s.giveBack(old, from, s.path) })
	return nil
}

// putBeside moves a file to its place beside the destination, or removes an old one
// that the new output does not have.
func (s *Stage) putBeside(b Beside) error {
	from, to := filepath.Join(s.tmp, b.Name), filepath.Join(filepath.Dir(s.path), b.Name)
	if b.Gone || b.Replace {
		aside := filepath.Join(s.tmp, ".aside-"+b.Name)
		if err := os.Rename(to, aside); err == nil {
			s.undo = append(s.undo, func() error { return os.Rename(aside, to) })
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if b.Gone {
		return nil
	}
	err := renameNew(from, to)
	switch {
	case err == nil:
		s.undo = append(s.undo, func() error { return os.Rename(to, from) })
	case errors.Is(err, fs.ErrExist) && b.Needed:
		return usage.Existsf("%s has come to be beside %s while this ran: it stays as it is, and nothing of this run is kept", b.Name, s.output.Dest)
	case errors.Is(err, fs.ErrExist):
		s.notes = append(s.notes, fmt.Sprintf("%s beside %s has come to be there while this ran, and is another's: what it would say is in the header alone", b.Name, s.output.Dest))
		err = nil
	}
	return err
}
