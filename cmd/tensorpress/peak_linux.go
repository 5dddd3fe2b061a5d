package main

// peakMemory is the most memory that this process had, in bytes; 0 where that is not
// known. What getrusage tells counts what was there before the program was loaded.
func peakMemory() int64 { return field("/proc/self/status", "VmHWM") }
