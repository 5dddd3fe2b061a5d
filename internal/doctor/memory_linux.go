package doctor

import (
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/report"
)

func memory() report.Memory { return memoryIn(os.DirFS("/")) }

// memoryIn reads what the kernel says, in files below the root.
func memoryIn(root fs.FS) (m report.Memory) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err == nil {
		m.Total, m.Available = kilobytes(string(text), "MemTotal"), kilobytes(string(text), "MemAvailable")
	}
	if m.Limit = groupLimit(root); m.Limit >= m.Total && m.Total > 0 { // as groups without one have
		m.Limit = 0
	}
	return m
}

func kilobytes(text, key string) int64 {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok && name == key {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// groupLimit is the least memory that the process's control group, or one above it, may
// have, 0 where there is no limit.
func groupLimit(root fs.FS) (least int64) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(fields) < 3 {
			continue
		}
		folder, file := "sys/fs/cgroup", "memory.max"
		switch {
		case fields[1] == "memory": // of the first version of groups
			folder, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		case fields[1] != "":
			continue
		}
		for at := path.Clean("/" + fields[2]); ; at = path.Dir(at) {
			n := limitIn(root, path.Join(folder, at, file))
			if n > 0 && (least == 0 || n < least) {
				least = n
			}
			if at == "/" {
				break
			}
		}
	}
	return least
}

func limitIn(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is none
	if err != nil {
		return 0
	}
	return n
}

// processor is the name of the first one; those of ARM have none there.
func processor() string {
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
