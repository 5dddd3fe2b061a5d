//go:build unix

package stage

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func free(path string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return -1
	}
	return int64(s.Bavail) * int64(s.Bsize)
}

// syncFolder syncs the names in a folder to disk.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // the file system has no sync of folders
	}
	return err
}

// lock locks what lies at path, to show that a living run needs it. The lock moves with
// it, and the system releases it when the process ends in whatever way.
func lock(path, _ string) (io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// abandoned reports whether nobody holds the lock, and false where the system cannot
// tell.
func abandoned(folder string) bool {
	f, err := os.Open(folder)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// lockAlone locks a folder that nobody else may work on; taken says that somebody does. The
// lock is nil where the system has none for it.
func lockAlone(path string) (l io.Closer, taken bool) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return f, false
	case errors.Is(err, unix.EWOULDBLOCK):
		taken = true
	}
	f.Close()
	return nil, taken
}

// renameOver moves a folder over an empty one, which [os.Rename] refuses.
func renameOver(from, to string) error {
	if err := unix.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// moveRefused returns why a file or folder cannot be moved within its folder, nil if it
// can. It tries to move it over full, a folder that is not empty. That fails in any
// case, but layers of container images, sticky folders and mounts fail with errors of
// their own.
func moveRefused(from, full string) error {
	switch err := unix.Rename(from, full); err {
	case unix.EXDEV, unix.EBUSY, unix.EPERM, unix.EACCES, unix.EROFS:
		return err
	case nil: // against POSIX, the system did move it
		return unix.Rename(full, from)
	}
	return nil
}

// otherDevice reports whether two paths lie on different disks.
func otherDevice(a, b fs.FileInfo) bool {
	x, okX := a.Sys().(*syscall.Stat_t)
	y, okY := b.Sys().(*syscall.Stat_t)
	return okX && okY && x.Dev != y.Dev
}
