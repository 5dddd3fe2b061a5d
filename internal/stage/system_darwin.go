package stage

import (
	"os"

	"golang.org/x/sys/unix"
)

func systemRenameNew(from, to string) error { return renameAs(from, to, unix.RENAME_EXCL) }

func systemExchange(a, b string) error { return renameAs(a, b, unix.RENAME_SWAP) }

func renameAs(from, to string, flag uint32) error {
	err := unix.RenamexNp(from, to, flag)
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: supported(err, unix.EINVAL)}
}

func isMount(string) bool { return false } // otherDevice finds mounts here
