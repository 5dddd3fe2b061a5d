package stage

import (
	"os"

	"golang.org/x/sys/unix"
)

func systemRenameNew(from, to string) error { return renameAs(from, to, unix.RENAME_NOREPLACE) }

func systemExchange(a, b string) error { return renameAs(a, b, unix.RENAME_EXCHANGE) }

func renameAs(from, to string, flags uint) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: supported(err, unix.EINVAL)}
}

// isMount reports whether something is mounted at the path, even if it is of the same
// disk as the folder above.
func isMount(path string) bool {
	var s unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &s)
	return err == nil && s.Attributes&s.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0
}
