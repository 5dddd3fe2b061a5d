package main

// packFours separates the first and the second codes of pairs and joins them in bytes.
func (a *assembly) packFours(name string, high bool) {
	a.packs(name, "puts two codes of four bits in a byte, 64 codes a turn.", func(codes, dst string) {
		x := a.vecs(4)
		for i := 0; i < 4; i += 2 {
			a.op("VLD2.P", "32("+codes+")", list(x[i:i+2], "B16"))
		}
		for i := range 2 {
			low, up := x[2*i], x[2*i+1]
			if high {
				low, up = up, low
			}
			a.op("VSLI", "$4", up.b(), low.b())
			a.op("VST1.P", list([]vec{low}, "B16"), "16("+dst+")")
		}
	})
}

func (a *assembly) packTwos() {
	a.packs("packTwos", "puts four codes of two bits in a byte, 64 codes a turn.", func(codes, dst string) {
		x := a.vecs(4)
		a.op("VLD4.P", "64("+codes+")", list(x, "B16"))
		a.op("VSLI", "$2", x[1].b(), x[0].b())
		a.op("VSLI", "$2", x[3].b(), x[2].b())
		a.op("VSLI", "$4", x[2].b(), x[0].b())
		a.store(x[:1], "B16", dst)
	})
}

func (a *assembly) packs(name, doc string, body func(codes, dst string)) {
	a.function(name, "dst, codes *byte, turns int", "", doc, func() {
		dst, codes, turns := a.param("dst"), a.param("codes"), a.param("turns")
		a.loop("turn", turns, func() { body(codes, dst) })
	})
}

// Offsets of the fields of Merge that assembly reads.
const (
	mergeTerms   = 8
	mergeShifts  = 0
	mergeMasks   = 16 * mergeTerms
	mergeShuffle = mergeMasks + 64*mergeTerms
	mergeSpread  = mergeShuffle + 16
)

// merge shifts and masks eight codes at a time, as a Merge says, and closes the gaps:
// it writes 16 whole bytes each time, and the next write overwrites the excess.
func (a *assembly) merge() {
	doc := "merges 64 codes a turn into eight times size bytes, and writes up to 16 bytes behind them."
	a.function("merge", "dst, codes *byte, turns, size int, m *byte", "", doc, func() {
		dst, codes, turns, size, m := a.param("dst"), a.param("codes"), a.param("turns"), a.param("size"), a.param("m")
		a.op("LSL", "$1", size, size) // of 16 codes
		var shifts, masks []vec
		for i := range mergeTerms {
			shifts = append(shifts, a.negative(m, mergeShifts+16*i, "D2"))
			masks = append(masks, a.row(m, mergeMasks+64*i))
		}
		shuffle, x, sum, t := a.row(m, mergeShuffle), a.vecs(4), a.vecs(4), a.vecs(4)
		a.loop("turn", turns, func() {
			a.load(x, "B16", codes)
			each(sum, func(i int, sum vec) { a.op("VAND", masks[0].b(), x[i].b(), sum.b()) })
			for term := 1; term < mergeTerms; term++ {
				each(t, func(i int, t vec) {
					a.shift("D2", shifts[term], x[i], t)
					a.op("VAND", masks[term].b(), t.b(), t.b())
					a.op("VORR", t.b(), sum[i].b(), sum[i].b())
				})
			}
			for _, sum := range sum {
				a.op("VTBL", shuffle.b(), list([]vec{sum}, "B16"), sum.b())
				a.op("VST1", list([]vec{sum}, "B16"), "("+dst+")")
				a.op("ADD", size, dst)
			}
		})
	})
}

// split is the inverse of merge: it opens the gaps, masks and shifts.
func (a *assembly) split() {
	doc := "makes 64 codes a turn of eight times size bytes, and reads up to 16 bytes behind them."
	a.function("split", "codes, src *byte, turns, size int, m *byte", "", doc, func() {
		codes, src, turns, size, m := a.param("codes"), a.param("src"), a.param("turns"), a.param("size"), a.param("m")
		a.op("LSL", "$1", size, size) // of 16 codes
		var shifts, masks []vec
		for i := range mergeTerms {
			shifts = append(shifts, a.repeated(m, mergeShifts+16*i, "D2"))
			masks = append(masks, a.row(m, mergeMasks+64*i))
		}
		spread, x, sum, t := a.row(m, mergeSpread), a.vecs(4), a.vecs(4), a.vecs(4)
		a.loop("turn", turns, func() {
			each(x, func(i int, x vec) {
				a.op("VLD1", "("+src+")", list([]vec{x}, "B16"))
				a.op("ADD", size, src)
				a.op("VTBL", spread.b(), list([]vec{x}, "B16"), x.b())
				a.op("VAND", masks[0].b(), x.b(), sum[i].b())
			})
			for term := 1; term < mergeTerms; term++ {
				each(t, func(i int, t vec) {
					a.op("VAND", masks[term].b(), x[i].b(), t.b())
					a.shift("D2", shifts[term], t, t)
					a.op("VORR", t.b(), sum[i].b(), sum[i].b())
				})
			}
			a.store(sum, "B16", codes)
		})
	})
}

// splitFours separates the low and the high bits of bytes.
func (a *assembly) splitFours(name string, high bool) {
	a.function(name, "codes, src *byte, turns int", "", "takes two codes of four bits out of each byte, 64 codes a turn.", func() {
		codes, src, turns := a.param("codes"), a.param("src"), a.param("turns")
		x, fifteen := a.vecs(4), a.constant(0x0F0F0F0F, "S4")
		a.loop("turn", turns, func() {
			for i := 0; i < 4; i += 2 {
				low, up := x[i], x[i+1]
				if high {
					low, up = up, low
				}
				a.load([]vec{low}, "B16", src)
				a.op("VUSHR", "$4", low.b(), up.b())
				a.op("VAND", fifteen.b(), low.b(), low.b())
				a.op("VST2.P", list(x[i:i+2], "B16"), "32("+codes+")")
			}
		})
	})
}
