//go:build unix

package openfiles

import "golang.org/x/sys/unix"

// limit is what the system lets the process open, -1 where it does not tell.
func limit() int64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || int64(l.Cur) < 0 {
		return -1
	}
	return int64(l.Cur)
}
