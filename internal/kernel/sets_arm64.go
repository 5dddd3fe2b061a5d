//go:build !purego

package kernel

// neon requires what every arm64 processor has.
var neon = func() set {
	s := portable
	s.name = "neon"
	s.nvfp4Blocks, s.mxfp8Blocks = nil, nil   // scaling and encoding with NEON is faster than these in Go
	s.stripBF16, s.interleavedBF16 = nil, nil // so is decoding by rows
	s.useNEON()
	s.addProduct = adding(s.productFused, s.add)
	r := &lanes{
		count: 4, interleave: interleaveNEON, deinterleave: unscaled(deinterleaveNEON),
		begin: beginBy(interleaveNEON, exactNEON), first: 1, products: productsBy(exactNEON),
		chainFours: chainBy(chainFoursNEON), chainTwos: chainBy(chainTwosNEON), chainSums: sumsBy(chainSumsNEON),
		singles: stages[float32]{pass4SinglesNEON, nil},
		once:    wideSums{stages: stages[float64]{pass4DoublesNEON, nil}, widen: widenRowsNEON, narrow: narrowRowsNEON},
	}
	s.rotate, s.rotateOnce = r.rotate, r.rotateOnce
	s.books = booksBy(r.count, bookSumsNEON, bookMeans)
	s.projectBF16 = projectWidened(panelsBy(projectFusedNEON, collectNEON), s.widenBF16)
	return s.joined()
}()
