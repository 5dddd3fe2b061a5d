//go:build !purego

package kernel

// avx2 requires AVX2, FMA and F16C.
var avx2 = func() set {
	s := portable
	s.name = "avx2"
	s.useAVX2()
	r := &lanes{
		count: 8, interleave: interleaveAVX2, deinterleave: deinterleaveAVX2,
		begin: beginBy(beginSinglesAVX2), first: 4, products: productsBy(productsAVX2),
		chainFours: chainFoursAVX2, chainTwos: chainTwosAVX2, chainSums: chainSumsAVX2,
		singles: stages[float32]{pass4SinglesAVX2, nil},
		once:    wideSums{stages: stages[float64]{pass4DoublesAVX2, nil}, widen: widenRowsAVX2, narrow: narrowRowsAVX2},
	}
	s.rotate, s.rotateOnce = r.rotate, r.rotateOnce
	s.books = booksBy(r.count, bookSumsAVX2, meansBy(bookMeansAVX2))
	return s.joined()
}()

// avx512 requires the F, BW, DQ and VL parts of AVX-512 as well.
var avx512 = func() set {
	s := avx2
	s.name = "avx512"
	s.useAVX512()
	r := &lanes{
		count: 16, interleave: interleaveAVX512, deinterleave: deinterleaveAVX512,
		begin: beginBy(beginSinglesAVX512), first: 16, products: productsBy(productsAVX512),
		chainFours: chainFoursAVX512, chainTwos: chainTwosAVX512, chainSums: chainSumsAVX512,
		singles: stages[float32]{pass4SinglesAVX512, pass16SinglesAVX512},
	}
	once := &lanes{count: 8, deinterleave: deinterleaveAVX2, once: wideSums{
		stages: stages[float64]{pass4DoublesAVX512, pass16DoublesAVX512},
		narrow: narrowRowsAVX512, begin: beginDoublesAVX512, end: endDoublesAVX512,
	}}
	s.rotate, s.rotateOnce = r.rotate, once.rotateOnce
	s.books, s.ranks = booksBy(r.count, bookSumsAVX512, meansBy(bookMeansAVX512)), ranksAVX512
	s = s.joined()
	wide, inexact := s.rotateOnceBF16, widening(s.widenBF16, r.inexact)
	s.rotateBF16 = intsOr(rotateChainIntsAVX512, s.rotateBF16, inexact)
	s.rotateOnceBF16 = intsOr(rotateIntsAVX512, wide, intsOr(rotateSplitIntsAVX512, wide, wide))
	s.lookUpRotated = levelsOr(rotateLevelsAVX512, s.lookUpRotated, s.lookUp, s.narrowBF16, inexact)
	s.decodeRotatedOnce = codesOr(rotateCodesAVX512, 24, s.decodeRotatedOnce)
	s.decodeRotatedBF16 = codesOr(rotateCodesBF16AVX512, 8, s.decodeRotatedBF16)
	return s
}()
