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

// syncFolder makes names in a folder as lasting as what they name.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // a file system whose folders are not synced
	}
	return err
}

// lock marks what lies at a path, or will lie at another, as that of a run that lives;
// the system lets go of the mark when the process ends, however it does.
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

// abandoned reports whether nobody holds the mark. It does not where the system
// cannot tell.
func abandoned(folder string) bool {
	f, err := os.Open(folder)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// renameOver moves a folder to where an empty one is, which [os.Rename] does not.
func renameOver(from, to string) error {
	if err := unix.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// moveRefused is what keeps a file or folder from being moved in its folder, nil for
// nothing. It is moved to where a folder that is not empty is, which fails at any rate:
// layers of container images, sticky folders and mounts fail in their own way.
func moveRefused(from, full string) error {
	switch err := unix.Rename(from, full); err {
	case unix.EXDEV, unix.EBUSY, unix.EPERM, unix.EACCES, unix.EROFS:
		return err
	case nil: // a system like no other
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
