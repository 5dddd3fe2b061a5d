// Package doctor looks at a machine: its processor and memory, the Python packages on it
// and the applications that load quantized models. It reads names and small files and runs
// nothing of what it finds.
package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/report"
)

// Options say where to look beside the usual places.
type Options struct {
	Python  string            // an interpreter, or the folder of an environment
	Folders map[string]string // of applications, by their names
	// LeastMemory is below what nothing can be quantized.
	LeastMemory int64
}

// Look examines the machine. It returns an error if what the options name is not there.
func Look(o Options) (*report.Diagnosis, error) {
	d := &report.Diagnosis{
		System: runtime.GOOS + "/" + runtime.GOARCH, CPU: processor(), Kernels: kernel.Used(), Sets: kernel.Sets(),
		Cores: runtime.NumCPU(), Threads: runtime.GOMAXPROCS(0), Memory: memory(),
		Disks: []report.Disk{}, Pythons: []report.Python{}, Apps: []report.Found{}, Notes: []string{}, Problems: []string{},
	}
	for _, folder := range []string{".", os.TempDir()} {
		if path, err := filepath.Abs(folder); err == nil {
			d.Disks = append(d.Disks, report.Disk{Path: path, Free: stage.Free(path)})
		}
	}
	for _, m := range []struct {
		bytes int64
		what  string
	}{{d.Memory.Available, "available"}, {d.Memory.Limit, "allowed to this process"}} {
		if m.bytes > 0 && m.bytes < o.LeastMemory {
			d.Problems = append(d.Problems, fmt.Sprintf("%s of memory are %s, and a run needs %s", report.Size(m.bytes), m.what, report.Size(o.LeastMemory)))
		}
	}
	l := &look{Options: o, d: d}
	if err := l.find(); err != nil {
		return nil, err
	}
	return d, nil
}

// home returns a path that begins with ~/ in the home folder, "" if there is none.
func home(path string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		return path
	}
	folder, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(folder, rest)
}

// most is how much is read of a file.
const most = 64 << 10

// read returns the beginning of an ordinary file, "" if there is none.
func read(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() { // a FIFO would keep the reader waiting
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	text := make([]byte, most)
	n, _ := f.Read(text)
	return string(text[:n])
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
