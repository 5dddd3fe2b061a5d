//go:build !linux && !darwin && !windows

package doctor

import "github.com/tensorpress/tensorpress/report"

func memory() report.Memory { return report.Memory{} }

func processor() string { return "" }
