package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// packs writes a function that packs 64 one-byte codes per turn.
func (v isa) packs(name, doc string, perTurn int, begin func(), body func(codes, dst Register)) {
	v.function(name, "func(dst, codes *byte, turns int)", name+v.name+" "+doc+", 64 codes a turn.")
	dst, codes, turns := param("dst"), param("codes"), param("turns")
	begin()
	loop("turn", turns, func() {
		body(codes, dst)
		ADDQ(U8(64), codes)
		ADDQ(U8(perTurn), dst)
	})
	VZEROUPPER()
	RET()
}

// packFours adds up the low bits of two codes, each multiplied by a byte of factor.
func (v isa) packFours(name string, factor uint16) {
	var factors, low VecVirtual
	v.packs(name, "puts the low four bits of two codes in a byte", 32, func() { factors, low = v.constant16(factor), v.constant16(0x0F0F) },
		func(codes, dst Register) {
			words := v.products(codes, factors, low)
			if v.wide {
				VPMOVWB(words[0], Mem{Base: dst})
				return
			}
			VPACKUSWB(words[1], words[0], words[0])
			VPERMQ(U8(0xD8), words[0], words[0])
			VMOVDQU(words[0], Mem{Base: dst})
		})
}

// products multiplies the low bits of the bytes of 64 codes by factors and adds
// them in pairs.
func (v isa) products(codes Register, factors, low VecVirtual) []VecVirtual {
	var words []VecVirtual
	for i := 0; i < 64; i += v.width() {
		x := v.vec()
		v.loadWhole(Mem{Base: codes, Disp: i}, x)
		v.and(low, x, x)
		VPMADDUBSW(factors, x, x)
		words = append(words, x)
	}
	return words
}

// packTwos packs pairs, and then pairs of these.
func (v isa) packTwos() {
	var bytes, words, low VecVirtual
	begin := func() { bytes, words, low = v.constant16(0x0401), v.constant(0x00100001), v.constant16(0x0303) }
	v.packs("packTwos", "puts the low two bits of four codes in a byte", 16, begin, func(codes, dst Register) {
		all := v.products(codes, bytes, low)
		for _, x := range all {
			VPMADDWD(words, x, x)
		}
		v.storeBytes(all, Mem{Base: dst})
	})
}

// Offsets of the fields of Merge.
const (
	mergeTerms   = 8
	mergeShifts  = 0
	mergeMasks   = 16 * mergeTerms
	mergeShuffle = mergeMasks + 64*mergeTerms
	mergeSpread  = mergeShuffle + 16
)

// merge shifts and masks eight codes at a time, as a Merge says, and closes the gaps:
// it writes 16 whole bytes each time, and the next write overwrites the excess.
func (v isa) merge() {
	v.function("merge", "func(dst, codes *byte, turns, size int, m *byte)",
		"merge"+v.name+" merges 64 codes a turn into eight times size bytes, and writes up to 16 bytes behind them.")
	dst, codes, turns, size, m := param("dst"), param("codes"), param("turns"), param("size"), param("m")
	SHLQ(U8(1), size) // of 16 codes
	shuffle := v.sixteens(Mem{Base: m, Disp: mergeShuffle})
	terms := v.terms(m)
	loop("turn", turns, func() {
		for i := 0; i < 64; i += v.width() {
			x := v.vec()
			v.loadWhole(Mem{Base: codes, Disp: i}, x)
			sum := terms(x)
			VPSHUFB(shuffle, sum, sum)
			v.storeLanes(sum, dst, size)
		}
		ADDQ(U8(64), codes)
	})
	VZEROUPPER()
	RET()
}

// terms returns code that adds up the terms of a Merge.
func (v isa) terms(m Register) func(x VecVirtual) VecVirtual {
	at := func(i int) (shift, mask Mem) {
		return Mem{Base: m, Disp: mergeShifts + 16*i}, Mem{Base: m, Disp: mergeMasks + 64*i}
	}
	if !v.wide {
		return func(x VecVirtual) VecVirtual {
			sum, t := v.vec(), v.vec()
			_, mask := at(0)
			VPAND(mask, x, sum)
			for i := 1; i < mergeTerms; i++ {
				shift, mask := at(i)
				VPSRLQ(shift, x, t)
				VPAND(mask, t, t)
				VPOR(t, sum, sum)
			}
			return sum
		}
	}
	var shifts [mergeTerms]Register
	var masks [mergeTerms]VecVirtual
	for i := range mergeTerms {
		shift, mask := at(i)
		x := XMM()
		VMOVQ(shift, x)
		shifts[i], masks[i] = x, v.vec()
		VMOVDQU64(mask, masks[i])
	}
	return func(x VecVirtual) VecVirtual {
		sum, t := v.vec(), v.vec()
		VPANDQ(masks[0], x, sum)
		for i := 1; i < mergeTerms; i++ {
			VPSRLQ(shifts[i], x, t)
			VPTERNLOGQ(U8(0xF8), masks[i], t, sum) // sum | t&mask
		}
		return sum
	}
}

// sixteens fills a vector with 16 bytes.
func (v isa) sixteens(m Mem) VecVirtual {
	r := v.vec()
	if v.wide {
		VBROADCASTI32X4(m, r)
	} else {
		VBROADCASTI128(m, r)
	}
	return r
}

// split is the inverse of merge: it opens the gaps, masks and shifts.
func (v isa) split() {
	v.function("split", "func(codes, src *byte, turns, size int, m *byte)",
		"split"+v.name+" makes 64 codes a turn of eight times size bytes, and reads up to 16 bytes behind them.")
	codes, src, turns, size, m := param("codes"), param("src"), param("turns"), param("size"), param("m")
	SHLQ(U8(1), size) // of 16 codes
	spread := v.sixteens(Mem{Base: m, Disp: mergeSpread})
	var shifts [mergeTerms]Op
	var masks [mergeTerms]Op
	for i := range mergeTerms {
		shifts[i], masks[i] = Mem{Base: m, Disp: mergeShifts + 16*i}, Mem{Base: m, Disp: mergeMasks + 64*i}
		if v.wide {
			shift, mask := XMM(), v.vec()
			VMOVQ(shifts[i], shift)
			VMOVDQU64(masks[i], mask)
			shifts[i], masks[i] = shift, mask
		}
	}
	loop("turn", turns, func() {
		for i := 0; i < 64; i += v.width() {
			x, sum, t := v.loadLanes(src, size), v.vec(), v.vec()
			VPSHUFB(spread, x, x)
			v.logic(VPANDQ, VPAND, masks[0], x, sum)
			for j := 1; j < mergeTerms; j++ {
				v.logic(VPANDQ, VPAND, masks[j], x, t)
				VPSLLQ(shifts[j], t, t)
				v.logic(VPORQ, VPOR, t, sum, sum)
			}
			v.storeWhole(sum, Mem{Base: codes, Disp: i})
		}
		ADDQ(U8(64), codes)
	})
	VZEROUPPER()
	RET()
}

// loadLanes reads 16 bytes for each lane, at distances of size bytes.
func (v isa) loadLanes(src, size Register) VecVirtual {
	x := v.vec()
	for i := 0; i < v.width(); i += 16 {
		switch m := (Mem{Base: src}); {
		case v.wide && i == 0:
			VMOVDQU32(m, x.AsX())
		case i == 0:
			VMOVDQU(m, x.AsX())
		case v.wide:
			VINSERTI32X4(U8(i/16), m, x, x)
		default:
			VINSERTI128(U8(i/16), m, x, x)
		}
		ADDQ(size, src)
	}
	return x
}

// storeLanes writes the 16 bytes of each lane, at distances of size bytes.
func (v isa) storeLanes(x VecVirtual, dst, size Register) {
	for i := 0; i < v.width(); i += 16 {
		switch lane, at := x.AsX(), (Mem{Base: dst}); {
		case v.wide && i > 0:
			VEXTRACTI32X4(U8(i/16), x, at)
		case v.wide:
			VMOVDQU32(lane, at)
		case i > 0:
			VEXTRACTI128(U8(i/16), x, at)
		default:
			VMOVDQU(lane, at)
		}
		ADDQ(size, dst)
	}
}

func (v isa) loadWhole(m Mem, to VecVirtual) {
	if v.wide {
		VMOVDQU32(m, to)
	} else {
		VMOVDQU(m, to)
	}
}

func (v isa) storeWhole(x VecVirtual, m Mem) {
	if v.wide {
		VMOVDQU32(x, m)
	} else {
		VMOVDQU(x, m)
	}
}
