package stage

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// system are operations that some systems do in one step; tests replace them.
var system = struct {
	renameNew func(from, to string) error // fails with [fs.ErrExist] if to exists
	exchange  func(a, b string) error
	link      func(from, to string) error
	removeAll func(path string) error
	refuses   func(from, full string) error
	isMount   func(path string) bool
}{systemRenameNew, systemExchange, os.Link, os.RemoveAll, moveRefused, isMount}

// supported turns an errno that means that the file system lacks a call into
// [errors.ErrUnsupported].
func supported(err error, unknown ...syscall.Errno) error {
	if errno, ok := err.(syscall.Errno); ok && slices.Contains(unknown, errno) {
		return errors.ErrUnsupported
	}
	return err
}

// renameNew moves a file or folder to a place where nothing is. It never overwrites
// what somebody else puts there at the same moment: the error is [fs.ErrExist] then.
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

// claimFolder makes an empty folder at to, in which only one run can succeed, and moves
// from over it, which works as long as it is empty.
func claimFolder(from, to string) error {
	if err := os.Mkdir(to, 0o777); err != nil {
		return err
	}
	err := renameOver(from, to)
	if err == nil {
		return nil
	}
	if e := os.Remove(to); e != nil && !errors.Is(e, fs.ErrNotExist) { // somebody else has put something into it
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return err
}

// claimFile makes an empty file at to, in which only one run can succeed, and moves
// from over it. If from is empty itself, the new empty file replaces it: from may be
// the claim of another run that was moved aside. That run will move its output over the
// new file as it would have over its own, and from must not overwrite that output.
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

// exchange moves from to to, and returns where the old file or folder is afterwards: at
// from, or at aside. If the system cannot exchange them in one step, the old one is
// moved aside first, and moved back if it turns out not to be the one that was meant.
// Even then there is a file at to at every moment, if the file system lets a file have
// two names; for a folder there is a gap.
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

// empty reports whether info is that of a plain file of no bytes.
func empty(info fs.FileInfo) bool { return info.Mode().IsRegular() && info.Size() == 0 }

// back moves what exchange has put aside back to its place. If another run has put
// something there meanwhile, that stays, and what was put aside is removed if it was
// only that run's empty file or folder.
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

// reached is called at points where a killed run would leave something behind; tests
// check there what a user would find.
var reached = func(step string) {}
