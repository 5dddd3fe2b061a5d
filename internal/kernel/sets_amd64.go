//go:build !purego

package kernel

// avx2 needs AVX2, FMA and F16C.
var avx2 = func() set {
	s := portable
	s.name = "avx2"
	s.widenBF16 = widenBy(widenBF16AVX2, widenBF16)
	s.widenF16 = widenBy(widenF16AVX2, widenF16)
	s.narrowBF16 = narrowBy(narrowBF16AVX2, narrowBF16)
	s.narrowF16 = narrowBy(narrowF16AVX2, narrowF16)
	s.minMax = minMaxBy(rangesF32AVX2)
	s.divide = divideBy(divideAVX2)
	s.multiply = multiplyBy(multiplyAVX2)
	s.roundInts = roundIntsBy(roundIntsAVX2)
	s.encodeSmall = castSmallBy(castSmallAVX2)
	s.decodeInts = decodeIntsBy(decodeIntsAVX2)
	s.decodeSmall = decodeSmallBy(decodeSmallAVX2)
	s.scaleBy = scaleByBy(scaleByAVX2)
	s.scaleFrom = scaleFromBy(scaleFromAVX2)
	s.ranges[RawBF16] = rangesBy(RawBF16, rangesBF16AVX2, signsAVX2)
	s.ranges[RawF32] = rangesBy(RawF32, rangesF32AVX2, signsAVX2)
	s.absMax[RawBF16] = absMaxBy(RawBF16, absMaxBF16AVX2)
	s.absMax[RawF32] = absMaxBy(RawF32, absMaxF32AVX2)
	s.encodeInts[RawBF16] = intsBy(RawBF16, intEncoders{multiplyIntsBF16AVX2, divideIntsBF16AVX2, divideFromIntsBF16AVX2})
	s.encodeInts[RawF32] = intsBy(RawF32, intEncoders{multiplyIntsF32AVX2, divideIntsF32AVX2, divideFromIntsF32AVX2})
	s.encodeFloats[RawBF16] = floatsBy(RawBF16, floatEncoders{multiplySmallBF16AVX2, divideSmallBF16AVX2, dividePackedBF16AVX2, divideFromPackedBF16AVX2})
	s.encodeFloats[RawF32] = floatsBy(RawF32, floatEncoders{multiplySmallF32AVX2, divideSmallF32AVX2, dividePackedF32AVX2, divideFromPackedF32AVX2})
	s.packFours = packBy(2, packFoursAVX2, packFours)
	s.packFoursHigh = packBy(2, packFoursHighAVX2, packFoursHigh)
	s.packTwos = packBy(4, packTwosAVX2, packTwos)
	s.merge = mergeBy(mergeAVX2)
	s.spans = spansBy(spansAVX2)
	s.powerSteps = powerStepsBy(powerStepsAVX2)
	s.fourBlocks = fourBlocksBy(4, fourBlocksAVX2)
	s.eightBlocks = eightBlocksBy(4, eightBlocksAVX2)
	r := &lanes{
		count: 8, interleave: interleaveAVX2, deinterleave: deinterleaveAVX2,
		begin: beginBy(beginSinglesAVX2), first: 4, products: productsBy(productsAVX2),
		chainFours: chainFoursAVX2, chainTwos: chainTwosAVX2, chainSums: chainSumsAVX2,
		singles: stages[float32]{pass4SinglesAVX2, nil},
		once:    wideSums{stages: stages[float64]{pass4DoublesAVX2, nil}, widen: widenRowsAVX2, narrow: narrowRowsAVX2},
	}
	s.rotate, s.rotateOnce = r.rotate, r.rotateOnce
	s.rotateBF16, s.rotateOnceBF16 = widening(s.widenBF16, s.rotate), widening(s.widenBF16, s.rotateOnce)
	s.books, s.bookCodes = booksBy(r.count, bookSumsAVX2, meansBy(bookMeansAVX2)), bookCodesBy(bookCodesAVX2)
	s.fitBooks = fitBooksBy(nearBooksAVX2, fitScalesAVX2, s.absMax[RawF32])
	s.split = splitBy(splitAVX2)
	s.splitFours = splitFoursBy(splitFoursAVX2, splitFours)
	s.splitFoursHigh = splitFoursBy(splitFoursHighAVX2, splitFoursHigh)
	s.decodeBytes = decodeBytesBy(decodeIntBytesAVX2, decodeFloatBytesAVX2, decodeFewBytesAVX2, decodeBytesWith(s.scaleBy, s.scaleFrom))
	s.decodePacked = decodePackedBy(decodePackedAVX2)
	s.lookUp = lookUpBy(lookUpAVX2)
	s.lookUpRotated = lookingUp(s.lookUp, s.rotate)
	s.roundBF16 = roundBy(roundBF16AVX2, roundBF16)
	s.decodeRotatedOnce, s.decodeRotatedBF16 = decoding(s.decodeBytes, unrounded, s.rotateOnce), decoding(s.decodeBytes, s.roundBF16, s.rotate)
	s.roundF16 = roundBy(roundF16AVX2, roundF16)
	s.errors[RawBF16] = errorsBy(RawBF16, errorsBF16AVX2)
	s.errors[RawF32] = errorsBy(RawF32, errorsF32AVX2)
	s.project, s.collect = projectBy(panelsAVX2), collectBy(panelsAVX2)
	s.projectFused = projectBy(panelsBy(projectFusedAVX2, collectAVX2))
	s.projectBF16, s.collectBF16 = projectBF16By(projectBF16AVX2), collectBF16By(collectBF16AVX2)
	s.addWide, s.leastBF16 = addWideBy(addWideAVX2), leastBF16By(leastBF16AVX2)
	s.addSums = addSumsBy(addSumsAVX2)
	s.add, s.subtract = pairwiseBy(addAVX2, add), pairwiseBy(subtractAVX2, subtract)
	s.product = productBy(productAVX2, productFrom)
	s.productFused = productBy(productFusedAVX2, productFusedFrom)
	s.productExact = s.productFused
	return s
}()

// avx512 needs the F, BW, DQ and VL parts too.
var avx512 = func() set {
	s := avx2
	s.name = "avx512"
	s.widenBF16 = widenBy(widenBF16AVX512, widenBF16)
	s.widenF16 = widenBy(widenF16AVX512, widenF16)
	s.narrowBF16 = narrowBy(narrowBF16AVX512, narrowBF16)
	s.narrowF16 = narrowBy(narrowF16AVX512, narrowF16)
	s.minMax = minMaxBy(rangesF32AVX512)
	s.divide = divideBy(divideAVX512)
	s.multiply = multiplyBy(multiplyAVX512)
	s.roundInts = roundIntsBy(roundIntsAVX512)
	s.encodeSmall = castSmallBy(castSmallAVX512)
	s.decodeInts = decodeIntsBy(decodeIntsAVX512)
	s.decodeSmall = decodeSmallBy(decodeSmallAVX512)
	s.scaleBy = scaleByBy(scaleByAVX512)
	s.scaleFrom = scaleFromBy(scaleFromAVX512)
	s.ranges[RawBF16] = rangesBy(RawBF16, rangesBF16AVX512, signsAVX512)
	s.ranges[RawF32] = rangesBy(RawF32, rangesF32AVX512, signsAVX512)
	s.absMax[RawBF16] = absMaxBy(RawBF16, absMaxBF16AVX512)
	s.absMax[RawF32] = absMaxBy(RawF32, absMaxF32AVX512)
	s.encodeInts[RawBF16] = intsBy(RawBF16, intEncoders{multiplyIntsBF16AVX512, divideIntsBF16AVX512, divideFromIntsBF16AVX512})
	s.encodeInts[RawF32] = intsBy(RawF32, intEncoders{multiplyIntsF32AVX512, divideIntsF32AVX512, divideFromIntsF32AVX512})
	s.encodeFloats[RawBF16] = floatsBy(RawBF16, floatEncoders{multiplySmallBF16AVX512, divideSmallBF16AVX512, dividePackedBF16AVX512, divideFromPackedBF16AVX512})
	s.encodeFloats[RawF32] = floatsBy(RawF32, floatEncoders{multiplySmallF32AVX512, divideSmallF32AVX512, dividePackedF32AVX512, divideFromPackedF32AVX512})
	s.packFours = packBy(2, packFoursAVX512, packFours)
	s.packFoursHigh = packBy(2, packFoursHighAVX512, packFoursHigh)
	s.packTwos = packBy(4, packTwosAVX512, packTwos)
	s.merge = mergeBy(mergeAVX512)
	s.spans = spansBy(spansAVX512)
	s.powerSteps = powerStepsBy(powerStepsAVX512)
	s.fourBlocks = fourBlocksBy(8, fourBlocksAVX512)
	s.eightBlocks = eightBlocksBy(8, eightBlocksAVX512)
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
	s.rotateBF16 = intsOr(rotateChainIntsAVX512, widening(s.widenBF16, s.rotate), widening(s.widenBF16, r.inexact))
	wide := widening(s.widenBF16, s.rotateOnce)
	s.rotateOnceBF16 = intsOr(rotateIntsAVX512, wide, intsOr(rotateSplitIntsAVX512, wide, wide))
	s.books, s.bookCodes = booksBy(r.count, bookSumsAVX512, meansBy(bookMeansAVX512)), bookCodesBy(bookCodesAVX512)
	s.ranks = ranksAVX512
	s.split = splitBy(splitAVX512)
	s.splitFours = splitFoursBy(splitFoursAVX512, splitFours)
	s.splitFoursHigh = splitFoursBy(splitFoursHighAVX512, splitFoursHigh)
	s.decodeBytes = decodeBytesBy(decodeIntBytesAVX512, decodeFloatBytesAVX512, decodeFewBytesAVX512, decodeBytesWith(s.scaleBy, s.scaleFrom))
	s.decodePacked = decodePackedBy(decodePackedAVX512)
	s.lookUp = lookUpBy(lookUpAVX512)
	s.lookUpRotated = levelsOr(rotateLevelsAVX512, lookingUp(s.lookUp, s.rotate), s.lookUp, s.narrowBF16, widening(s.widenBF16, r.inexact))
	s.roundBF16 = roundBy(roundBF16AVX512, roundBF16)
	s.decodeRotatedOnce = codesOr(rotateCodesAVX512, 24, decoding(s.decodeBytes, unrounded, s.rotateOnce))
	s.decodeRotatedBF16 = codesOr(rotateCodesBF16AVX512, 8, decoding(s.decodeBytes, s.roundBF16, s.rotate))
	s.roundF16 = roundBy(roundF16AVX512, roundF16)
	s.errors[RawBF16] = errorsBy(RawBF16, errorsBF16AVX512)
	s.errors[RawF32] = errorsBy(RawF32, errorsF32AVX512)
	s.project, s.collect = projectBy(panelsAVX512), collectBy(panelsAVX512)
	s.projectFused = projectBy(panelsBy(projectFusedAVX512, collectAVX512))
	s.projectBF16, s.collectBF16 = projectBF16By(projectBF16AVX512), collectBF16By(collectBF16AVX512)
	s.addWide, s.leastBF16 = addWideBy(addWideAVX512), leastBF16By(leastBF16AVX512)
	s.addSums = addSumsBy(addSumsAVX512)
	s.add, s.subtract = pairwiseBy(addAVX512, add), pairwiseBy(subtractAVX512, subtract)
	s.product = productBy(productAVX512, productFrom)
	s.productFused = productBy(productFusedAVX512, productFusedFrom)
	s.productExact = s.productFused
	return s
}()

var (
	panelsAVX2   = panelsBy(projectAVX2, collectAVX2)
	panelsAVX512 = panelsBy(projectAVX512, collectAVX512)
)
