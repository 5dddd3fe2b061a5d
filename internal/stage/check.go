package stage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// Output describes the destination and what may happen to it.
type Output struct {
	Dest    string
	Folder  bool     // Dest will be a folder with all files; else it is one file, with Beside next to it
	Force   bool     // replace what is at Dest, if it is an older output
	Parents bool     // make missing folders above Dest
	Keeps   bool     // what a store has of it already is part of it
	Sources []string // files and folders that the run reads
	Contents
	// Beside are further files that come with an output file.
	Beside []Beside
}

// Beside is a file that is written next to an output file.
type Beside struct {
	Name    string
	Replace bool // replace an existing one, which belongs to the output; else the existing one stays
	Needed  bool // the output is useless without it
	Gone    bool // the new output has none: an existing one is removed
}

// target is a destination as it was before the run.
type target struct {
	path string      // absolute, with links resolved
	old  fs.FileInfo // what was there, nil if nothing was
}

// Check refuses a destination that would overwrite something, or to which nothing can
// be moved.
func Check(o Output) error {
	_, err := check(o)
	return err
}

func check(o Output) (target, error) {
	path, err := Real(o.Dest)
	if err != nil {
		return target{}, err
	}
	for _, source := range o.Sources {
		if err := apart(o.Dest, path, source); err != nil {
			return target{}, err
		}
	}
	old, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target{path: path}, nil
	case errors.Is(err, syscall.ENOTDIR):
		return target{}, usage.Errorf("%s lies in what is no folder: name another destination", o.Dest)
	case err != nil:
		return target{}, err
	}
	t := target{path, old}
	return t, t.check(o)
}

// Real returns the path of a destination with links resolved. The destination itself
// need not exist.
func Real(dest string) (string, error) {
	path, err := filepath.Abs(dest)
	if err != nil {
		return "", err
	}
	for range 40 { // as many links as systems follow
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return resolve(path), nil
		}
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(resolve(filepath.Dir(path)), to)
		}
		path = to
	}
	return "", usage.Errorf("%s is a link that leads back to itself: name another destination", dest)
}

// resolve resolves links as far as the path exists.
func resolve(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

// apart refuses a destination that is a source, contains one, or lies in one.
func apart(dest, path, source string) error {
	s := resolve(source)
	if within(path, s) {
		return usage.Errorf("%s lies in the source %s: name another destination", dest, source)
	}
	if within(s, path) {
		return usage.Errorf("%s holds the source %s: name another destination", dest, source)
	}
	a, errA := os.Stat(dest)
	b, errB := os.Stat(source)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return usage.Errorf("%s is the source %s: name another destination", dest, source)
	}
	return nil
}

func within(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && (rel == "." || filepath.IsLocal(rel))
}

// check decides whether what is at the destination may be replaced.
func (t target) check(o Output) error {
	if err := t.movable(o); err != nil {
		return err
	}
	switch {
	case !o.Force:
		return usage.Existsf("%s exists: name another destination, or give `Force` to replace it", o.Dest)
	case t.old.IsDir() != o.Folder:
		return usage.Existsf("%s exists and is %s: name another destination", o.Dest, kindOf(t.old))
	case !o.Folder && !t.old.Mode().IsRegular():
		return usage.Existsf("%s exists and is no ordinary file: name another destination", o.Dest)
	case o.Folder:
		return o.checkContents(o.Dest, t.path)
	}
	return nil
}

// movable refuses, before any work is done, what cannot be renamed.
func (t target) movable(o Output) error {
	parent := filepath.Dir(t.path)
	if parent == t.path {
		return usage.Errorf("%s is the root of a disk: name a folder in it", o.Dest)
	}
	above, err := os.Lstat(parent)
	if err != nil {
		return err
	}
	if system.isMount(t.path) || t.old.IsDir() && otherDevice(t.old, above) { // in layered file systems, a plain file's device may differ from its folder's
		return usage.Errorf("%s is where a disk is mounted, which cannot be replaced: name a place in it, or another destination", o.Dest)
	}
	if here, err := os.Getwd(); err == nil && o.Folder && within(resolve(here), t.path) {
		return usage.Errorf("%s is the folder that you work in, or holds it: name a folder in it, or go elsewhere", o.Dest)
	}
	return nil
}

func kindOf(info fs.FileInfo) string {
	if info.IsDir() {
		return "a folder"
	}
	return "a file"
}

// again makes sure that what is at path is still what was found at the destination.
func (t target) again(o Output, path string) error {
	now, err := os.Lstat(path)
	if t.old == nil && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if t.old == nil || err != nil || !os.SameFile(t.old, now) || now.Mode().IsRegular() && isWritten(t.old, now) {
		return appeared(o)
	}
	if o.Folder {
		return o.checkContents(o.Dest, path)
	}
	return nil
}

// isWritten reports whether a file was written to.
func isWritten(old, now fs.FileInfo) bool {
	return old.Size() != now.Size() || !old.ModTime().Equal(now.ModTime())
}

// appeared returns the error that somebody else changed the destination during the run.
func appeared(o Output) error {
	return usage.Existsf("%s has come to be there, or become another, while this ran: it stays as it is, and nothing of this run is kept: name another destination", o.Dest)
}
