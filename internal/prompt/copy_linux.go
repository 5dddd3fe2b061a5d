package prompt

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// CanCopy says whether [Copy] can work on this system.
const CanCopy = true

// Copy has the system copy n bytes from an offset of one file to an offset of another,
// and returns how many it has copied. The error is [errors.ErrUnsupported] if the
// system cannot copy between these files or stops before the end.
func Copy(dst *os.File, to int64, src *os.File, from int64, n int) (int, error) {
	done := 0
	for done < n {
		some, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, n-done, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOSPC || err == unix.EIO || err == unix.EDQUOT || err == unix.EFBIG:
			return done, os.NewSyscallError("copy_file_range", err)
		case err != nil || some <= 0: // different file systems, an old kernel, or the end of src
			return done, errors.ErrUnsupported
		}
		done += some
	}
	return done, nil
}
