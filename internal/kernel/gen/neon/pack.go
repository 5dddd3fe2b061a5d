package main

// packFours takes the first and the second codes of pairs apart.
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
