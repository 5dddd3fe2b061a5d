//go:build !purego

package kernel

// neon needs what every arm64 has.
var neon = func() set {
	s := portable
	s.name = "neon"
	s.fourBlocks, s.eightBlocks = nil, nil // what they would replace has its own
	s.widenBF16 = widenBy(widenBF16NEON, widenBF16)
	s.widenF16 = widenBy(widenF16NEON, widenF16)
	s.narrowBF16 = narrowBy(narrowBF16NEON, narrowBF16)
	s.narrowF16 = narrowBy(narrowF16NEON, narrowF16)
	s.minMax = minMaxBy(rangesF32NEON)
	s.divide = divideBy(divideNEON)
	s.multiply = multiplyBy(multiplyNEON)
	s.roundInts = roundIntsBy(roundIntsNEON)
	s.encodeSmall = castSmallBy(castSmallNEON)
	s.decodeInts = decodeIntsBy(decodeIntsNEON)
	s.decodeSmall = decodeSmallBy(decodeSmallNEON)
	s.scaleBy = scaleByBy(scaleByNEON)
	s.scaleFrom = scaleFromBy(scaleFromNEON)
	s.ranges[RawBF16] = rangesBy(RawBF16, rangesBF16NEON, signsNEON)
	s.ranges[RawF32] = rangesBy(RawF32, rangesF32NEON, signsNEON)
	s.absMax[RawBF16] = absMaxBy(RawBF16, absMaxBF16NEON)
	s.absMax[RawF32] = absMaxBy(RawF32, absMaxF32NEON)
	s.encodeInts[RawBF16] = intsBy(RawBF16, intEncoders{multiplyIntsBF16NEON, divideIntsBF16NEON, divideIntsBF16NEON})
	s.encodeInts[RawF32] = intsBy(RawF32, intEncoders{multiplyIntsF32NEON, divideIntsF32NEON, divideIntsF32NEON})
	s.encodeFloats[RawBF16] = floatsBy(RawBF16, floatEncoders{multiplySmallBF16NEON, divideSmallBF16NEON, dividePackedBF16NEON, dividePackedBF16NEON})
	s.encodeFloats[RawF32] = floatsBy(RawF32, floatEncoders{multiplySmallF32NEON, divideSmallF32NEON, dividePackedF32NEON, dividePackedF32NEON})
	s.packFours = packBy(2, packFoursNEON, packFours)
	s.packFoursHigh = packBy(2, packFoursHighNEON, packFoursHigh)
	s.packTwos = packBy(4, packTwosNEON, packTwos)
	s.merge = mergeBy(mergeNEON)
	s.spans = spansBy(spansNEON)
	r := &lanes{
		count: 4, interleave: interleaveNEON, deinterleave: unscaled(deinterleaveNEON),
		begin: beginBy(interleaveNEON, exactNEON), first: 1, products: productsBy(exactNEON),
		chainFours: chainBy(chainFoursNEON), chainTwos: chainBy(chainTwosNEON), chainSums: sumsBy(chainSumsNEON),
		singles: stages[float32]{pass4SinglesNEON, nil},
		once:    wideSums{stages: stages[float64]{pass4DoublesNEON, nil}, widen: widenRowsNEON, narrow: narrowRowsNEON},
	}
	s.rotate, s.rotateOnce = r.rotate, r.rotateOnce
	s.rotateBF16, s.rotateOnceBF16 = widening(s.widenBF16, s.rotate), widening(s.widenBF16, s.rotateOnce)
	s.books, s.bookCodes = booksBy(r.count, bookSumsNEON, bookMeans), bookCodesBy(bookCodesNEON)
	s.split = splitBy(splitNEON)
	s.splitFours = splitFoursBy(splitFoursNEON, splitFours)
	s.splitFoursHigh = splitFoursBy(splitFoursHighNEON, splitFoursHigh)
	s.decodeBytes = decodeBytesBy(decodeIntBytesNEON, decodeFloatBytesNEON, nil, decodeBytesWith(s.scaleBy, s.scaleFrom))
	s.decodePacked = decodePackedBy(decodePackedNEON)
	s.lookUp = lookUpBy(lookUpNEON)
	s.lookUpRotated = lookingUp(s.lookUp, s.rotate)
	s.roundBF16 = roundBy(roundBF16NEON, roundBF16)
	s.decodeRotatedOnce, s.decodeRotatedBF16 = decoding(s.decodeBytes, unrounded, s.rotateOnce), decoding(s.decodeBytes, s.roundBF16, s.rotate)
	s.roundF16 = roundBy(roundF16NEON, roundF16)
	s.errors[RawBF16] = errorsBy(RawBF16, errorsBF16NEON)
	s.errors[RawF32] = errorsBy(RawF32, errorsF32NEON)
	panels, fused := panelsBy(projectNEON, collectNEON), panelsBy(projectFusedNEON, collectNEON)
	s.project, s.collect = projectBy(panels), collectBy(panels)
	s.projectFused, s.projectBF16 = projectBy(fused), projectWidened(fused, s.widenBF16)
	s.collectBF16 = collectBF16By(collectBF16NEON)
	s.addSums = addSumsBy(addSumsNEON)
	s.add, s.subtract = pairwiseBy(addNEON, add), pairwiseBy(subtractNEON, subtract)
	s.product = productBy(productNEON, productFrom)
	s.productFused = productBy(productFusedNEON, productFusedFrom)
	s.productExact = s.productFused
	return s
}()
