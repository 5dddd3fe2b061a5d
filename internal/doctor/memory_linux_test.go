package doctor

import (
	"testing"
	"testing/fstest"

	"github.com/tensorpress/tensorpress/report"
)

// TestMemoryOfGroups: what a container may have counts, be it said of a group above, and
// in the words of either version of groups.
func TestMemoryOfGroups(t *testing.T) {
	const meminfo = "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    600 kB\n"
	for name, tt := range map[string]struct {
		files map[string]string
		limit int64
	}{
		"none": {map[string]string{"proc/self/cgroup": "0::/\n"}, 0},
		"of version 2, above": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "4096\n", "sys/fs/cgroup/memory.max": "8192\n",
		}, 4096},
		"of version 1": {map[string]string{
			"proc/self/cgroup": "9:name=systemd:/\n4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "5000\n",
		}, 5000},
		"in a container of version 1": {map[string]string{"proc/self/cgroup": "4:memory:/docker/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n"}, 5000},
		"more than there is":          {map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
	} {
		root := fstest.MapFS{"proc/meminfo": {Data: []byte(meminfo)}}
		for path, text := range tt.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got, want := memoryIn(root), (report.Memory{Total: 1000 << 10, Available: 600 << 10, Limit: tt.limit}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
