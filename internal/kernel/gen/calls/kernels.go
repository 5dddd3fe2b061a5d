// Package calls writes the Go code between a set of kernels and its assembly: the set's
// table, and for each kernel a function that gives whole turns to the assembly and the
// rest to the portable function.
package calls

// A kernel is a field of the set and says how assembly fills it. If slices is set, the
// assembly's function and the portable one have the field's name, and the call is
// written out. Otherwise by names the function of package kernel that makes the field.
type kernel struct {
	field string

	// slices are those that assembly goes through, by name and type. The last one
	// without a number after it is counted; "*2" after another one means two elements
	// for each counted one, and "/2" one for every two.
	slices string
	more   string // parameters after the slices
	args   string // what assembly takes after the slices and the turns, if not the names of more
	result string // "bool" if it is true when all turns and the rest return true
	before string // a statement on which args depend
	only   string // condition for calling assembly
	turn   int    // counted elements per turn: 0 means 16, or lanes

	// by makes the field. Functions of the assembly stand in braces. Of several
	// separated by bars, the first that exists counts; nil is none. If one of them is
	// missing, the field stays what it is.
	by string
}

// lanes means that a turn is half as many elements as a vector has 32-bit lanes.
const lanes = -1

// kernels are all kernels but the rotations and codebooks, which sets_*.go put
// together. A row with an @ means one kernel for each form of raw values.
var kernels = []kernel{
	{field: "widenBF16", slices: "dst []float32, src []byte*2"},
	{field: "widenF16", slices: "dst []float32, src []byte*2"},
	{field: "narrowBF16", slices: "dst []byte*2, src []float32"},
	{field: "narrowF16", slices: "dst []byte*2, src []float32"},
	{field: "minMax", by: "minMaxBy({rangesF32})"},
	{field: "divide", slices: "x []float32", more: "zero, scale, lo, hi float32"},
	{field: "multiply", slices: "x []float32", more: "factor, lo, hi float32"},
	{field: "roundInts", slices: "codes []uint16, x []float32", more: "offset int32, nan uint16", args: "uint32(offset-0x4B400000), uint32(nan)"},
	{field: "encodeSmall", slices: "codes []uint16, x []float32", more: "f *Small", before: "c := smallConstants[f]", only: "c != nil", args: "&c[0][0][0]"},
	{field: "decodeInts", slices: "dst []float32, codes []uint16", more: "flip uint16, offset int32", args: "uint32(flip), uint32(offset)"},
	{field: "decodeSmall", slices: "dst []float32, codes []uint16", more: "f *Small", before: "c := smallConstants[f]", only: "c != nil", args: "&c[1][0][0]"},
	{field: "decodePacked", slices: "dst []float32, codes []uint16", more: "f *Packed", before: "c := packedConstants(f)", args: "&c[0][0]"},
	{field: "scaleBy", slices: "x []float32", more: "scale float32"},
	{field: "scaleFrom", slices: "x []float32", more: "scale, zero float32"},
	{field: "ranges[Raw@]", by: "rangesBy(Raw@, {ranges@}, {signs})"},
	{field: "absMax[Raw@]", by: "absMaxBy(Raw@, {absMax@})"},
	{field: "encodeInts[Raw@]", by: "intsBy(Raw@, intEncoders{{multiplyInts@}, {divideInts@}, {divideFromInts@|divideInts@}})"},
	{field: "encodeFloats[Raw@]", by: "floatsBy(Raw@, floatEncoders{{multiplySmall@}, {divideSmall@}, {dividePacked@}, {divideFromPacked@|dividePacked@}})"},
	{field: "errors[Raw@]", by: "errorsBy(Raw@, {errors@})"},
	{field: "packFours", slices: "dst []byte/2, codes []byte", turn: 64},
	{field: "packFoursHigh", slices: "dst []byte/2, codes []byte", turn: 64},
	{field: "packTwos", slices: "dst []byte/4, codes []byte", turn: 64},
	{field: "merge", by: "mergeBy({merge})"},
	{field: "split", by: "splitBy({split})"},
	{field: "splitFours", slices: "codes []byte, src []byte/2", turn: 64},
	{field: "splitFoursHigh", slices: "codes []byte, src []byte/2", turn: 64},
	{field: "spans", slices: "scales []float32, inverses []float32, lo []float32, hi []float32", more: "divisor float32", result: "bool"},
	{field: "powerSteps", slices: "codes []byte, scales []float32, inverses []float32, amax []float32", more: "most float32", result: "bool"},
	{field: "nvfp4Blocks", slices: "dst []byte*8, scales []byte, src []byte*32", more: "f *NVFP4Table", args: "&f.Codes[0], &f.Factors[0], &nvfp4Levels[0]", turn: lanes},
	{field: "mxfp8Blocks", slices: "codes []byte*32, scales []byte, src []byte*64", args: "&mxfp8Lows[0]", turn: lanes},
	{field: "bookCodes", slices: "codes []uint16, x []float32", more: "middles []float32", args: "unsafe.SliceData(middles[:BookLevels-1])"},
	{field: "sumLines", by: "sumLinesBy({sumLines})"},
	{field: "sumWeightedLines", by: "sumWeightedLinesBy({sumLinesWeighted})"},
	{field: "fitLines", by: "fitLinesBy({fitLines})"},
	{field: "keepLines", by: "keepLinesBy({keepLines})"},
	{field: "wholeRows", by: "wholeRowsBy({wholeRows})"},
	{field: "placeLines", by: "placeLinesBy({placeLines})"},
	{field: "addWholeLines", by: "addWholeLinesBy({addWholeLines})"},
	{field: "lineErrors", by: "lineErrorsBy({lineErrors})"},
	{field: "weightedLineErrors", by: "weightedLineErrorsBy({lineErrorsWeighted})"},
	{field: "scaleErrors", by: "scaleErrorsBy({scaleErrors})"},
	{field: "weightedScaleErrors", by: "weightedScaleErrorsBy({scaleErrorsWeighted})"},
	{field: "leastErrors", by: "leastErrorsBy({leastErrors})"},
	{field: "magnitudes[Raw@]", by: "magnitudesBy(Raw@, {magnitudes@})"},
	{field: "fitBooks", by: "fitBooksBy({nearBooks}, {fitScales}, s.absMax[RawF32])"},
	{field: "decodeBytes", by: "decodeBytesBy({decodeIntBytes}, {decodeFloatBytes}, {decodeFewBytes|nil}, decodeBytesWith(s.scaleBy, s.scaleFrom))"},
	{field: "lookUp", slices: "dst []float32, codes []byte", more: "levels []float32", before: "all := sixteen(levels)", only: "len(levels) <= len(all)", args: "&all[0]"},
	{field: "stripBF16", by: "stripBy({stripBF16}, 8, stripBF16)"},
	{field: "interleavedBF16", by: "stripBy({interleavedBF16}, 16, interleavedBF16)"},
	{field: "roundBF16", slices: "x []float32"},
	{field: "roundF16", slices: "x []float32"},
	{field: "project", by: "projectBy(panelsBy({project}, {collect}))"},
	{field: "projectFused", by: "projectBy(panelsBy({projectFused}, {collect}))"},
	{field: "collect", by: "collectBy(panelsBy({project}, {collect}))"},
	{field: "projectBF16", by: "projectBF16By({projectBF16})"},
	{field: "collectBF16", by: "collectBF16By({collectBF16})"},
	{field: "leastBF16", by: "leastBF16By({leastBF16})"},
	{field: "addWide", slices: "dst []float64, x []float32", more: "scale float64"},
	{field: "addSums", by: "addSumsBy({addSums})"},
	{field: "add", slices: "x []float32, y []float32"},
	{field: "subtract", slices: "x []float32, y []float32"},
	{field: "product", by: "productBy({product}, productFrom)"},
	{field: "productFused", by: "productBy({productFused}, productFusedFrom)"},
	{field: "addProduct", by: "addProductBy(productAdders{{addProduct1}, {addProduct2}, {addProduct3}, {addProduct4}, {addProduct5}, {addProduct6}}, adding(s.productFused, s.add))"},
	{field: "productExact", by: "productBy({productFused}, productFusedFrom)"},
}
