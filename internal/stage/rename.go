package stage

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// system is what the operating system does in one step; tests take it away.
var system = struct {
	renameNew func(from, to string) error // an error, an [fs.ErrExist], where to is there
	exchange  func(a, b string) error
	link      func(from, to string) error
	removeAll func(path string) error
	refuses   func(from, full string) error
	isMount   func(path string) bool
}{systemRenameNew, systemExchange, os.Link, os.RemoveAll, moveRefused, isMount}

// supported makes an error that says that a file system does not know the call an
// [errors.ErrUnsupported].
func supported(err error, unknown ...syscall.Errno) error {
	if errno, ok := err.(syscall.Errno); ok && slices.Contains(unknown, errno) {
		return errors.ErrUnsupported
	}
	return err
}

// renameNew moves a file or folder to where nothing is, and never over what has
// come there meanwhile: then the error is an [fs.ErrExist].
func renameNew(from, to string) error {
	err := system.renameNew(from, to)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return claimFolder(from, to)
	}
	switch err := system.link(from, to); {
	case err == nil:
		return os.Remove(from)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	return claimFile(from, to)
}

// claimFolder makes an empty folder, which only one can, and puts the other in its
// place, which works while it is empty.
func claimFolder(from, to string) error {
	if err := os.Mkdir(to, 0o777); err != nil {
		return err
	}
	err := renameOver(from, to)
	if err == nil {
		return nil
	}
	if e := os.Remove(to); e != nil && !errors.Is(e, fs.ErrNotExist) { // no longer empty: another's
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return err
}

// claimFile makes an empty file, which only one can, and puts the other in its
// place. An empty one is there with that: it may be the claim of another run, pushed
// aside, whose output is moved over the new one as over the old, and which must not
// be moved over that output in turn.
func claimFile(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	err = f.Close()
	if err == nil && empty(info) {
		return os.Remove(from)
	}
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// exchange puts a file or folder in the place of another, and returns where that is
// then: from, or aside. Where the system cannot in one step, the other is put aside
// first, and is back where it is not the one that was meant: a file is at to at every
// moment all the same where it can have two names, a folder is not.
func exchange(from, to, aside string, meant fs.FileInfo) (old string, err error) {
	if err := system.exchange(from, to); !errors.Is(err, errors.ErrUnsupported) {
		return from, err
	}
	over := os.Rename
	if meant.IsDir() || system.link(to, aside) != nil {
		over = renameNew
		if err := os.Rename(to, aside); err != nil {
			return "", err
		}
	}
	reached("aside")
	now, err := os.Lstat(aside)
	if err == nil && !os.SameFile(now, meant) {
		err = fs.ErrExist
	}
	if err == nil {
		err = over(from, to)
	}
	if err != nil {
		return "", errors.Join(err, back(aside, to))
	}
	return aside, nil
}

// empty reports a file of no bytes.
func empty(info fs.FileInfo) bool { return info.Mode().IsRegular() && info.Size() == 0 }

// back undoes what exchange has put aside. What another run has put in its place
// meanwhile stays; that run's empty file or folder, which claimed the place, need not.
func back(aside, to string) error {
	old, err := os.Lstat(aside)
	if err != nil {
		return err
	}
	if now, err := os.Lstat(to); err == nil && os.SameFile(old, now) { // two names
		return os.Remove(aside)
	}
	err = renameNew(aside, to)
	if errors.Is(err, fs.ErrExist) && (old.IsDir() || empty(old)) && os.Remove(aside) == nil {
		return nil
	}
	return err
}

// reached is called where a run may be killed with something left behind; tests
// look around there.
var reached = func(step string) {}
