package doctor

import (
	"golang.org/x/sys/unix"

	"github.com/tensorpress/tensorpress/report"
)

// memory does not know what is available: macOS tells that to C programs alone.
func memory() (m report.Memory) {
	if total, err := unix.SysctlUint64("hw.memsize"); err == nil {
		m.Total = int64(total)
	}
	return m
}

func processor() string {
	name, err := unix.Sysctl("machdep.cpu.brand_string")
	if err != nil {
		return ""
	}
	return name
}
