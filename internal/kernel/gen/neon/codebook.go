package main

// bookLevels is the number of levels of a codebook, some of which may have no values.
const bookLevels = 16

// bookSums adds each value of a row to the sum of its level, in its lane, and counts
// the values above each middle. What is above a middle is above all middles before it.
// Zero is added to the sums of all other levels, which does not change them, because
// they begin with a positive zero.
func (a *assembly) bookSums() {
	doc := "adds up rows of 4 lanes by 16 levels, and counts the values above 15 middles."
	a.function("bookSums", "sums *float32, counts *uint32, x, middles *float32, rows int", "", doc, func() {
		sums, counts, x, middles, rows := a.param("sums"), a.param("counts"), a.param("x"), a.param("middles"), a.param("rows")
		sum, value, over, next, t := a.vecs(bookLevels), a.vec(), a.vec(), a.vec(), a.vec()
		one, count, middle := a.constant(0x3F800000, "S4"), a.reg(), a.reg()
		a.op("MOVD", sums, count)
		for i := 0; i < bookLevels; i += 4 {
			a.load(sum[i:i+4], "S4", count)
		}
		add := func(mask, sum vec) {
			a.op("VAND", value.b(), mask.b(), mask.b())
			a.op("VFMLA", one.s(), mask.s(), sum.s())
		}
		a.loop("row", rows, func() {
			a.load([]vec{value}, "S4", x)
			a.op("MOVD", counts, count)
			a.op("MOVD", middles, middle)
			a.op("VMOVI", "$255", over.b())
			for i := range bookLevels - 1 {
				a.load([]vec{t}, "S4", middle)
				a.less(t, value, next)
				a.op("VEOR", next.b(), over.b(), over.b())
				add(over, sum[i])
				a.op("VLD1", "("+count+")", list([]vec{t}, "S4"))
				a.op("VSUB", next.s(), t.s(), t.s())
				a.store([]vec{t}, "S4", count)
				over, next = next, over
			}
			add(over, sum[bookLevels-1])
		})
		for i := 0; i < bookLevels; i += 4 {
			a.store(sum[i:i+4], "S4", sums)
		}
	})
}

// bookCodes counts the middles below consecutive values.
func (a *assembly) bookCodes() {
	var all []vec
	var code, t vec
	constants := func() {
		middles := a.param("middles")
		all, code, t = a.vecs(bookLevels-1), a.vec(), a.vec()
		each(all, func(_ int, middle vec) { a.op("VLD1R.P", "4("+middles+")", "["+middle.s()+"]") })
	}
	a.toWords("bookCodes", "middles *float32", constants, func(x vec) {
		a.clear(code)
		for _, middle := range all {
			a.less(middle, x, t)
			a.op("VSUB", t.s(), code.s(), code.s())
		}
		a.op("VMOV", code.b(), x.b())
	})
}
