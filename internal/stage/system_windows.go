package stage

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

func free(path string) int64 {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return -1
	}
	var available uint64
	if err := windows.GetDiskFreeSpaceEx(name, &available, nil, nil); err != nil {
		return -1
	}
	return int64(available)
}

func renameOver(from, to string) error { return os.Rename(from, to) } // renameNew does not need it

func syncFolder(string) error { return nil } // the file system's journal keeps names

func systemRenameNew(from, to string) error {
	a, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	b, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	if err := windows.MoveFile(a, b); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func systemExchange(a, b string) error { return errors.ErrUnsupported }

func isMount(string) bool { return false }

func moveRefused(from, full string) error { return nil }

func otherDevice(a, b fs.FileInfo) bool { return false }

// lockName is a file beside a hidden folder: a file within it would keep the folder
// from being moved.
func lockName(folder string) string { return folder + ".lock" }

// lock makes a lock file for what will be hidden at folder, to show that a living run
// needs it. The system removes the file when the process ends in whatever way.
func lock(_, folder string) (io.Closer, error) {
	name, err := windows.UTF16PtrFromString(lockName(folder))
	if err != nil {
		return nil, err
	}
	h, err := windows.CreateFile(name, windows.GENERIC_WRITE|windows.DELETE, windows.FILE_SHARE_DELETE, nil,
		windows.CREATE_NEW, windows.FILE_ATTRIBUTE_HIDDEN|windows.FILE_FLAG_DELETE_ON_CLOSE, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "lock", Path: folder, Err: err}
	}
	return os.NewFile(uintptr(h), lockName(folder)), nil
}

// abandoned reports whether nobody holds the lock.
func abandoned(folder string) bool {
	_, err := os.Lstat(lockName(folder))
	return errors.Is(err, fs.ErrNotExist)
}

// lockAlone locks a folder that nobody else may work on; taken says that somebody does.
func lockAlone(folder string) (l io.Closer, taken bool) {
	l, err := lock(folder, folder)
	if err != nil {
		return nil, !abandoned(folder)
	}
	return l, false
}
