// Package kernel holds the loops that touch every value. A set is one implementation of
// all of them. The portable set defines the results, and any other must equal it bit
// for bit. Slices of one call have equal lengths, except those of matrices, which are
// row-major.
//
// The machine's best set is chosen at the start; TENSORPRESS_CPU names another one, and
// with the build tag purego there is only the portable one. gen/README.md says how to
// add a kernel or a set.
package kernel

//go:generate go run -C gen . -out ../kernels_amd64.s -stubs ../stubs_amd64.go -calls ../calls_amd64.go -pkg kernel
//go:generate go run -C gen ./neon -out ../kernels_arm64.s -stubs ../stubs_arm64.go -calls ../calls_arm64.go

// A set is an implementation for one instruction set.
type set struct {
	name                             string
	ranges                           [2]func(lo, hi []float32, src []byte, group int) // by Raw
	absMax                           [2]func(amax []float32, src []byte, group int)
	encodeInts                       [2]func(codes, src []byte, steps Steps, group int, f *Ints)
	encodeFloats                     [2]func(codes, src []byte, steps Steps, group int, f *Floats)
	spans                            func(scales, inverses, lo, hi []float32, divisor float32) bool
	powerSteps                       func(codes []byte, scales, inverses, amax []float32, most float32) bool
	nvfp4Blocks                      func(dst, scales, src []byte, f *NVFP4Table) // nil for none
	mxfp8Blocks                      func(codes, scales, src []byte)              // nil for none
	packFoursHigh                    func(dst, codes []byte)
	packFours, packTwos              func(dst, codes []byte)
	merge                            func(dst, codes []byte, m *Merge)
	split                            func(codes, src []byte, m *Merge)
	splitFours, splitFoursHigh       func(codes, src []byte)
	widenBF16, widenF16, widenF32    func(dst []float32, src []byte)
	narrowBF16, narrowF16, narrowF32 func(dst []byte, src []float32)
	minMax                           func(x []float32) (lo, hi float32)
	divide                           func(x []float32, zero, scale, lo, hi float32)
	multiply                         func(x []float32, factor, lo, hi float32)
	roundInts                        func(codes []uint16, x []float32, offset int32, nan uint16)
	encodeSmall                      func(codes []uint16, x []float32, f *Small)
	encodePacked                     func(codes []uint16, x []float32, f *Packed)
	decodeInts                       func(dst []float32, codes []uint16, flip uint16, offset int32)
	decodeSmall                      func(dst []float32, codes []uint16, f *Small)
	decodePacked                     func(dst []float32, codes []uint16, f *Packed)
	decodeBytes                      func(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values)
	lookUp                           func(dst []float32, codes []byte, levels []float32)
	stripBF16, interleavedBF16       func(dst []byte, stride int, words []byte, s *Strip) // nil for none
	roundBF16, roundF16              func(x []float32)
	errors                           [2]func(e *Errors, values []byte, others []float32) // by Raw
	scaleBy                          func(x []float32, scale float32)
	scaleFrom                        func(x []float32, scale, zero float32)
	rotate, rotateOnce               func(x []float32, n int, entry float32)
	rotateBF16, rotateOnceBF16       func(dst []float32, src []byte, n int, entry float32)
	decodeRotatedOnce                RotatedDecoder
	decodeRotatedBF16                RotatedDecoder
	lookUpRotated                    func(dst []float32, codes []byte, levels []float32, n int, entry float32)
	books                            *bookSet // nil for none
	ranks                            *rankSet // nil for none
	bookCodes                        func(codes []uint16, x, middles []float32)
	sumLines                         func(sums *LineSums, x []float32, from, inverse *Lanes, lo, hi float32)
	sumWeightedLines                 func(sums *LineSums, x, weights []float32, from, inverse *Lanes, lo, hi float32)
	fitLines                         func(fit *LineFit, sums *LineSums, n *LineWeights, old *Line, through bool)
	keepLines                        func(best *[2]LineFit, fit *LineFit)
	wholeRows                        func(y []uint32, x []float32, from, factor *Lanes)
	placeLines                       func(place *WholeLine, line *Line, c *WholeCodes)
	addWholeLines                    func(sums *LineSums, y []uint32, place *WholeLine, c *WholeCodes)
	lineErrors                       func(errors *Lanes, x []float32, by, restored *Line, lo, hi float32)
	weightedLineErrors               func(errors *Lanes, x, weights []float32, by, restored *Line, lo, hi float32)
	scaleErrors                      func(errors, x, inverses, squares []float32, f *Rounding)
	weightedScaleErrors              func(errors, x, weights, inverses, squares []float32, f *Rounding)
	leastErrors                      func(numbers *[LineLanes]uint32, errors []float32, gain float32)
	magnitudes                       [2]func(x []float32, src []byte, size int) // by Raw
	fitBooks                         func(scales, reach, x, levels, edges []float32)
	project, projectFused            func(dst []float64, w, x []float32, columns, width int)
	collect                          func(dst []float64, w, y []float32, scale []float64, columns, width int)
	projectBF16                      func(dst []float64, w []byte, x []float32, columns int)
	collectBF16                      func(sums []float32, w []byte, y []float32, columns int)
	leastBF16                        func(src []byte) uint16
	addWide                          func(dst []float64, x []float32, scale float64)
	addSums                          func(dst []float64, f Factors, x []float64, width, used int)
	add, subtract                    func(x, y []float32)
	product, productFused            func(dst Rows, up, down []float32)
	productExact, addProduct         func(dst Rows, up, down []float32)
}

var portable = (&set{
	name:         "portable",
	ranges:       [2]func([]float32, []float32, []byte, int){rangesOf(RawBF16), rangesOf(RawF32)},
	absMax:       [2]func([]float32, []byte, int){absMaxOf(RawBF16), absMaxOf(RawF32)},
	encodeInts:   [2]func([]byte, []byte, Steps, int, *Ints){encodeIntsOf(RawBF16), encodeIntsOf(RawF32)},
	encodeFloats: [2]func([]byte, []byte, Steps, int, *Floats){encodeFloatsOf(RawBF16), encodeFloatsOf(RawF32)},
	spans:        spans, powerSteps: powerSteps, nvfp4Blocks: nvfp4Blocks, mxfp8Blocks: mxfp8Blocks,
	packFoursHigh: packFoursHigh, packFours: packFours, packTwos: packTwos, merge: merge, split: split,
	splitFours: splitFours, splitFoursHigh: splitFoursHigh,
	widenBF16: widenBF16, widenF16: widenF16, widenF32: widenF32,
	narrowBF16: narrowBF16, narrowF16: narrowF16, narrowF32: narrowF32,
	minMax: minMax, divide: divide, multiply: multiply,
	roundInts: roundInts, encodeSmall: encodeSmall, encodePacked: encodePacked,
	decodeInts: decodeInts, decodeSmall: decodeSmall, decodePacked: decodePacked,
	decodeBytes: decodeBytes, lookUp: lookUp, stripBF16: stripBF16, interleavedBF16: interleavedBF16, roundBF16: roundBF16, roundF16: roundF16,
	errors:  [2]func(*Errors, []byte, []float32){errorsOf(RawBF16), errorsOf(RawF32)},
	scaleBy: scaleBy, scaleFrom: scaleFrom,
	rotate: rotate, rotateOnce: rotateOnce, bookCodes: bookCodes, fitBooks: fitBooks,
	sumLines: sumLines, sumWeightedLines: sumWeightedLines, fitLines: fitLines, keepLines: keepLines, wholeRows: wholeRowsOf, placeLines: placeLines, addWholeLines: addWholeLines, lineErrors: lineErrors, weightedLineErrors: weightedLineErrors,
	scaleErrors: scaleErrors, weightedScaleErrors: weightedScaleErrors, leastErrors: leastErrors, magnitudes: [2]func([]float32, []byte, int){magnitudesOf(RawBF16), magnitudesOf(RawF32)},
	project: projectBy(portablePanels), projectFused: projectBy(fusedPanels), collect: collectBy(portablePanels), addSums: addSums,
	projectBF16: projectWidened(portablePanels, widenBF16), collectBF16: collectBF16, addWide: addWide, leastBF16: leastBF16,
	add: add, subtract: subtract, product: product, productFused: productFused, productExact: product, addProduct: adding(productFused, add),
}).joined()

// joined fills in the kernels that run two other kernels one after the other.
func (s *set) joined() set {
	s.rotateBF16, s.rotateOnceBF16 = widening(s.widenBF16, s.rotate), widening(s.widenBF16, s.rotateOnce)
	s.decodeRotatedOnce, s.decodeRotatedBF16 = decoding(s.decodeBytes, unrounded, s.rotateOnce), decoding(s.decodeBytes, s.roundBF16, s.rotate)
	s.lookUpRotated = lookingUp(s.lookUp, s.rotate)
	return *s
}

// WidenBF16 reads little-endian bfloat16 values.
func WidenBF16(dst []float32, src []byte) { active.widenBF16(dst, src) }

// WidenF16 reads little-endian IEEE half-precision values.
func WidenF16(dst []float32, src []byte) { active.widenF16(dst, src) }

// WidenF32 reads little-endian single-precision values.
func WidenF32(dst []float32, src []byte) { active.widenF32(dst, src) }

// NarrowBF16 writes bfloat16, rounded to nearest even.
func NarrowBF16(dst []byte, src []float32) { active.narrowBF16(dst, src) }

// NarrowF16 writes half precision, rounded to nearest even.
func NarrowF16(dst []byte, src []float32) { active.narrowF16(dst, src) }

// NarrowF32 writes single precision as it is.
func NarrowF32(dst []byte, src []float32) { active.narrowF32(dst, src) }

// MinMax returns the least and the greatest value; of zeros with different signs, the
// first counts. If any value is NaN both results are NaN. x must not be empty.
func MinMax(x []float32) (lo, hi float32) { return active.minMax(x) }

// Divide sets x to (x - zero) / scale, each step rounded, clamped to [lo, hi].
// NaN stays NaN.
func Divide(x []float32, zero, scale, lo, hi float32) { active.divide(x, zero, scale, lo, hi) }

// Multiply sets x to x · factor, clamped to [lo, hi]. NaN stays NaN.
func Multiply(x []float32, factor, lo, hi float32) { active.multiply(x, factor, lo, hi) }

// RoundInts sets codes to x, |x| ≤ 65536, rounded to nearest even, plus offset.
// NaN becomes the code nan.
func RoundInts(codes []uint16, x []float32, offset int32, nan uint16) {
	active.roundInts(codes, x, offset, nan)
}

// EncodeSmall casts x to a native small float.
func EncodeSmall(codes []uint16, x []float32, f *Small) { active.encodeSmall(codes, x, f) }

// EncodePacked casts x, finite and within the format's range, to a packed float.
func EncodePacked(codes []uint16, x []float32, f *Packed) { active.encodePacked(codes, x, f) }

// DecodeInts sets dst to (code xor flip) + offset.
func DecodeInts(dst []float32, codes []uint16, flip uint16, offset int32) {
	active.decodeInts(dst, codes, flip, offset)
}

// DecodeSmall sets dst to the values of native float codes.
func DecodeSmall(dst []float32, codes []uint16, f *Small) { active.decodeSmall(dst, codes, f) }

// DecodePacked sets dst to the values of packed float codes, exactly.
func DecodePacked(dst []float32, codes []uint16, f *Packed) { active.decodePacked(dst, codes, f) }

// ScaleBy sets x to x · scale.
func ScaleBy(x []float32, scale float32) { active.scaleBy(x, scale) }

// ScaleFrom sets x to x · scale + zero, rounded once.
func ScaleFrom(x []float32, scale, zero float32) { active.scaleFrom(x, scale, zero) }

// Rotate multiplies consecutive groups of n values, a power of 2 from 4 on, by
// the symmetric Hadamard matrix H of that size whose entries are ±entry, signed
// as package rotation says. Each result is a chain of fused multiply-adds, with
// one rounding a step: from 0, for k = 0, 1, …, n-1: sum = x[k]·H[k][j] + sum.
// A negative zero, to which only tiny sums round, becomes a positive one.
func Rotate(x []float32, n int, entry float32) { active.rotate(x, n, entry) }

// RotateBF16 sets dst to the result of Rotate for the bfloat16 values in src.
func RotateBF16(dst []float32, src []byte, n int, entry float32) {
	active.rotateBF16(dst, src, n, entry)
}

// RotateOnce is Rotate with sums in double precision, in any order, which are
// multiplied by the entry and rounded to single precision at the end. A negative zero
// becomes a positive one.
func RotateOnce(x []float32, n int, entry float32) { active.rotateOnce(x, n, entry) }

// RotateOnceBF16 is RotateOnce for bfloat16 values.
func RotateOnceBF16(dst []float32, src []byte, n int, entry float32) {
	active.rotateOnceBF16(dst, src, n, entry)
}

// Project sets dst [rows, width] to w·x, w being [rows, columns] and x
// [columns, width]. Products and sums are rounded to single precision for 256
// columns, whose sums are added in double, all in ascending order:
//
//	for j := range columns {
//		if s[c] += float32(w[i, j] * x[j, c]); j%256 == 255 || j == columns-1 {
//			dst[i, c] += float64(s[c])
//			s[c] = 0
//		}
//	}
func Project(dst []float64, w, x []float32, columns, width int) {
	active.project(dst, w, x, columns, width)
}

// ProjectFused is Project with fused multiplication and addition.
func ProjectFused(dst []float64, w, x []float32, columns, width int) {
	active.projectFused(dst, w, x, columns, width)
}

// Collect adds wᵀ·y, with its columns multiplied by powers of two, to dst, where w is
// [rows, columns] and y is [rows, width]. Sums are as in [Project], for 256 rows at a
// time. dst is stored in strips of [StripColumns] columns of w, [strips, width, 16]:
// dst[j, c] below is dst[(j/16*width+c)*16 + j%16].
//
//	for i := range rows {
//		if s[c] += float32(w[i, j] * y[i, c]); i%256 == 255 || i == rows-1 {
//			dst[j, c] += float64(s[c]) * scale[c]
//			s[c] = 0
//		}
//	}
func Collect(dst []float64, w, y []float32, scale []float64, columns, width int) {
	active.collect(dst, w, y, scale, columns, width)
}

// ProjectBF16 is [Project] for little-endian bfloat16 values and 16 columns of x. Every
// product must be exact in single precision, so that it makes no difference whether it
// is rounded before it is added.
func ProjectBF16(dst []float64, w []byte, x []float32, columns int) {
	active.projectBF16(dst, w, x, columns)
}

// CollectBF16 adds wᵀ·y to sums in single precision, row after row, where w is bfloat16
// [rows, columns] and y is [rows, 16]. Sums are stored as those of [Collect]. As in
// [ProjectBF16], every product must be exact.
func CollectBF16(sums []float32, w []byte, y []float32, columns int) {
	active.collectBF16(sums, w, y, columns)
}

// LeastBF16 returns the least magnitude of the bfloat16 values other than zero, as bits
// minus 1. If all are zeros, it returns 65535.
func LeastBF16(src []byte) uint16 { return active.leastBF16(src) }

// AddWide adds x, multiplied by a power of two, to dst.
func AddWide(dst []float64, x []float32, scale float64) { active.addWide(dst, x, scale) }

// StripColumns is the number of columns in a strip; the last strip is padded.
const StripColumns = sumLanes

// SumRows is the most rows that AddSums takes.
const SumRows = 4

// Factors are the factors of AddSums: that of row k and term j is X[k·Row + j·Term].
type Factors struct {
	X         []float64
	Row, Term int
}

// AddSums adds to the first used values of each row of dst, which has up to four rows
// of width values: row k gets Σ_j of its factor j times row j of x, in ascending order,
// by fused multiplication and addition.
func AddSums(dst []float64, f Factors, x []float64, width, used int) {
	active.addSums(dst, f, x, width, used)
}

// Add sets x to x + y.
func Add(x, y []float32) { active.add(x, y) }

// Subtract sets x to x - y.
func Subtract(x, y []float32) { active.subtract(x, y) }

// Rows are a matrix, or some columns of one.
type Rows struct {
	X             []float32
	Stride        int // from one row to the next
	Count, Values int // rows, and values of a row
}

// Product sets dst to up·down in single precision, where down is [rank, dst.Values].
// Each sum begins with zero and adds products in ascending order of the rank; products
// and sums are rounded.
func Product(dst Rows, up, down []float32) { active.product(dst, up, down) }

// ProductExact is Product if single precision holds every product exactly, so that
// fused multiply-adds give the same result.
func ProductExact(dst Rows, up, down []float32) { active.productExact(dst, up, down) }

// ProductFused is Product with fused multiply-adds.
func ProductFused(dst Rows, up, down []float32) { active.productFused(dst, up, down) }
