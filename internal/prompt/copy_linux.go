package prompt

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// CanCopy is whether [Copy] may do anything.
const CanCopy = true

// Copy has the system copy n bytes between places of two files, and returns how many
// it has. The error is [errors.ErrUnsupported] where it does not copy between them, or
// does not go on.
func Copy(dst *os.File, to int64, src *os.File, from int64, n int) (int, error) {
	done := 0
	for done < n {
		some, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, n-done, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOSPC || err == unix.EIO || err == unix.EDQUOT || err == unix.EFBIG:
			return done, os.NewSyscallError("copy_file_range", err)
		case err != nil || some <= 0: // other file systems, old kernels, the end
			return done, errors.ErrUnsupported
		}
		done += some
	}
	return done, nil
}
