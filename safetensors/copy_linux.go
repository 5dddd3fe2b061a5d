package safetensors

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const canCopy = true

// copyRange copies n bytes between places of two files.
func copyRange(dst *os.File, to int64, src *os.File, from int64, n int) (int, error) {
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
