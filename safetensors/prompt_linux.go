//go:build amd64 || arm64

package safetensors

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ways of a file.
const (
	unknownWay int32 = iota
	inMemory         // nothing waits
	cached           // reads tell when they would wait
	usualWay
)

// mostPromptly bounds one call: the garbage collector waits for it.
const mostPromptly = 1 << 20

// readPromptly returns how much of p it has read. Errors are left to who reads
// the rest.
func (f *prompt) readPromptly(p []byte, off int64) (done int) {
	if f.conn == nil || f.way.Load() == usualWay {
		return 0
	}
	f.conn.Control(func(fd uintptr) { // holds off Close
		switch f.wayOf(fd) {
		case inMemory:
			done = repeat(syscall.SYS_PREAD64, fd, p, off)
		case cached:
			done = f.readCached(fd, p, off)
		}
	})
	return done
}

// writePromptly returns how much of p it has written.
func (f *prompt) writePromptly(p []byte, off int64) (done int) {
	if f.conn == nil || f.way.Load() > inMemory {
		return 0
	}
	f.conn.Control(func(fd uintptr) {
		if f.wayOf(fd) == inMemory {
			done = repeat(syscall.SYS_PWRITE64, fd, p, off)
		}
	})
	return done
}

// wayOf finds out where the file lies, once.
func (f *prompt) wayOf(fd uintptr) int32 {
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

// repeat calls pread or pwrite until all is done or a call does nothing.
func repeat(call, fd uintptr, p []byte, off int64) (done int) {
	for done < len(p) {
		some := p[done:min(len(p), done+mostPromptly)]
		n, _, errno := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&some[0])), uintptr(len(some)), uintptr(off)+uintptr(done), 0, 0)
		if errno != 0 || n == 0 {
			break
		}
		done += int(n)
	}
	return done
}

// readCached reads up to the first byte that would have to come from a device.
func (f *prompt) readCached(fd uintptr, p []byte, off int64) (done int) {
	for done < len(p) {
		some := unix.Iovec{Base: &p[done]}
		some.SetLen(min(len(p)-done, mostPromptly))
		n, _, errno := syscall.RawSyscall6(unix.SYS_PREADV2, fd, uintptr(unsafe.Pointer(&some)), 1, uintptr(off)+uintptr(done), 0, unix.RWF_NOWAIT)
		switch {
		case errno == syscall.EAGAIN || errno == syscall.EINTR:
			return done
		case errno != 0: // an older system, or a file system that cannot tell
			f.way.Store(usualWay)
			return done
		case n == 0:
			return done
		}
		done += int(n)
	}
	return done
}
