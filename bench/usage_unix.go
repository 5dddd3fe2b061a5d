//go:build unix

package main

import (
	"os"
	"runtime"
	"syscall"
)

func peak(p *os.ProcessState) int64 {
	usage, ok := p.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return usage.Maxrss
	}
	return 1024 * usage.Maxrss
}
