// Package prompt reads, writes and copies files with the system calls that take the
// least time.
package prompt

import (
	"os"
	"sync/atomic"
	"syscall"
)

// File reads and writes what the system has in memory without telling the Go scheduler.
// Around a call that it knows of, the scheduler hands the processor to another thread
// and takes one back, which takes longer than the copying itself: that was a tenth of a
// run. Calls that may wait for a device go through the scheduler as usual.
type File struct {
	*os.File
	conn syscall.RawConn // nil if all calls go the usual way
	way  atomic.Int32    // which calls the file system allows, see wayOf
}

// New wraps an open file.
func New(f *os.File) *File {
	conn, err := f.SyscallConn()
	if err != nil {
		return &File{File: f}
	}
	return &File{File: f, conn: conn}
}

// ReadAt reads as [os.File.ReadAt] does.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	return complete(f.readPromptly(p, off), p, off, f.File.ReadAt)
}

// WriteAt writes as [os.File.WriteAt] does.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	return complete(f.writePromptly(p, off), p, off, f.File.WriteAt)
}

// complete does what is left of p, after the first done bytes, in the usual way.
func complete(done int, p []byte, off int64, usual func(p []byte, off int64) (int, error)) (int, error) {
	if done == len(p) {
		return done, nil
	}
	n, err := usual(p[done:], off+int64(done))
	return done + n, err
}
