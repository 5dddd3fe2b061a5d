//go:build !purego

package kernel

import "unsafe"

var ranksAVX512 = &rankSet{
	keys: func(keys []uint16, x []float32) bool {
		n, tail := len(x)/step, [step]float32{}
		rest := uint32(0)
		if n > 0 {
			rest = rankKeysAVX512(&keys[0], &x[0], n)
		}
		if n *= step; n < len(x) {
			var last [step]uint16
			copy(tail[:], x[n:])
			rest |= rankKeysAVX512(&last[0], &tail[0], 1)
			copy(keys[n:], last[:len(x)-n])
		}
		return rest == 0
	},
	sort: func(r *Ranks) {
		pairs := (*float32)(unsafe.Pointer(&r.keys[0]))
		rows, half := (*float32)(unsafe.Pointer(&r.rows[0])), r.size/2
		interleaveAVX512(rows, pairs, 2*r.size, half/rotateBlock)
		rankSortAVX512(&r.rows[0], half)
		for i := 0; i < len(r.rows); i += rotateBlock * RankedGroups {
			interleaveAVX512((*float32)(unsafe.Pointer(&r.blocks[i])), (*float32)(unsafe.Pointer(&r.rows[i])), 4*RankedGroups, 1)
		}
	},
	sums: func(r *Ranks, group int, s *Sorted) {
		rankSumsAVX512(s.keys, &s.values[1], &s.sums[1], &r.blocks[group*rotateBlock], r.size/2/rotateBlock)
	},
	find:  func(s *Sorted) { rankFindAVX512(s.bytes(), s.half) },
	steps: func(s *Sorted) { rankStepsAVX512(s.bytes()) },
}

func (c *Cells) bytes() *byte { return (*byte)(unsafe.Pointer(c)) }
