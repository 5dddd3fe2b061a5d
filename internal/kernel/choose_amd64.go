//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

func others() []choice {
	x := &cpu.X86
	hasAVX2 := x.HasAVX2 && x.HasFMA && x.HasF16C
	hasAVX512 := hasAVX2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL
	return []choice{{"avx2", &avx2, hasAVX2}, {"avx512", &avx512, hasAVX512}}
}
