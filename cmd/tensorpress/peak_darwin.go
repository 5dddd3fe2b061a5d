package main

import "syscall"

// peakMemory is the most memory that this process had, in bytes; 0 where that is not known.
func peakMemory() int64 {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return used.Maxrss
}
