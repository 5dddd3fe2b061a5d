package safetensors

import (
	"os"
	"sync/atomic"
	"syscall"
)

// prompt is a file of which what the system has in memory is read and written
// without the Go scheduler hearing of it. A call that the scheduler knows of gives
// its processor to another thread and takes one back, though it copies for less
// time than that takes: it was a tenth of a run. Whatever may have to wait for a
// device goes the usual way.
type prompt struct {
	*os.File
	conn syscall.RawConn // nil where all goes the usual way
	way  atomic.Int32    // what the file system lets be done so
}

func newPrompt(f *os.File) *prompt {
	conn, err := f.SyscallConn()
	if err != nil {
		return &prompt{File: f}
	}
	return &prompt{File: f, conn: conn}
}

func (f *prompt) ReadAt(p []byte, off int64) (int, error) {
	done := f.readPromptly(p, off)
	if done == len(p) {
		return done, nil
	}
	n, err := f.File.ReadAt(p[done:], off+int64(done))
	return done + n, err
}

func (f *prompt) WriteAt(p []byte, off int64) (int, error) {
	done := f.writePromptly(p, off)
	if done == len(p) {
		return done, nil
	}
	n, err := f.File.WriteAt(p[done:], off+int64(done))
	return done + n, err
}
