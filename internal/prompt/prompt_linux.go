//go:build amd64 || arm64

package prompt

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The values of File.way.
const (
	unknownWay int32 = iota
	inMemory         // a file in memory: no call waits
	cached           // a read can report that it would wait
	usualWay
)

// mostPromptly bounds the bytes of one call, since the garbage collector waits for the
// call.
const mostPromptly = 1 << 20

// readPromptly returns how many bytes of p it has read. Reading the rest reports any
// error.
func (f *File) readPromptly(p []byte, off int64) (done int) {
	if f.conn == nil || f.way.Load() == usualWay {
		return 0
	}
	f.conn.Control(func(fd uintptr) { // keeps the file open during the calls
		switch f.wayOf(fd) {
		case inMemory:
			done = f.repeat(unix.SYS_PREADV2, fd, p, off, 0)
		case cached:
			done = f.repeat(unix.SYS_PREADV2, fd, p, off, unix.RWF_NOWAIT)
		}
	})
	return done
}

// writePromptly returns how much of p it has written.
func (f *File) writePromptly(p []byte, off int64) (done int) {
	if f.conn == nil || f.way.Load() > inMemory {
		return 0
	}
	f.conn.Control(func(fd uintptr) {
		if f.wayOf(fd) == inMemory {
			done = f.repeat(unix.SYS_PWRITEV2, fd, p, off, 0)
		}
	})
	return done
}

// wayOf finds out, once per file, on what kind of file system it lies.
func (f *File) wayOf(fd uintptr) int32 {
	if way := f.way.Load(); way != unknownWay {
		return way
	}
	way := cached
	var system unix.Statfs_t
	if err := unix.Fstatfs(int(fd), &system); err != nil {
		way = usualWay
	} else if system.Type == unix.TMPFS_MAGIC || system.Type == unix.RAMFS_MAGIC {
		way = inMemory
	}
	f.way.Store(way)
	return way
}

// repeat calls preadv2 or pwritev2 until p is done or a call does nothing, because it
// would have to wait, is at the end of the file, or fails. If the system or the file
// system does not have the call, f does not try it again.
func (f *File) repeat(call, fd uintptr, p []byte, off int64, flags uintptr) (done int) {
	for done < len(p) {
		some := unix.Iovec{Base: &p[done]}
		some.SetLen(min(len(p)-done, mostPromptly))
		n, _, errno := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&some)), 1, uintptr(off)+uintptr(done), 0, flags)
		if errno != 0 || n == 0 {
			if errno == syscall.EOPNOTSUPP || errno == syscall.ENOSYS || errno == syscall.EINVAL || errno == syscall.EPERM {
				f.way.Store(usualWay)
			}
			break
		}
		done += int(n)
	}
	return done
}
