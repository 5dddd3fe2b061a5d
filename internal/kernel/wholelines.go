package kernel

import "math"

// WholeRange is the size of the range of a group whose values are whole numbers.
const WholeRange = 1 << 14

// WholeBits is the most bits that codes of whole numbers may have.
const WholeBits = 7

// wholeRows is how many rows are added up in whole numbers before they are added to
// sums in single precision: a sum of that many squares has at most 31 bits.
const wholeRows = 32

// mostRest bounds the rest of a value that lies beyond the last code, so that
// 2·wholeRows squares of it fit 31 bits.
const mostRest = 5700

// WholeCodes are the codes of groups whose values are whole numbers. A value in units
// of the scale has Shift bits behind the point.
type WholeCodes struct {
	// c are lo, hi and a half, each twice in 16 bits, the shift, 2^-shift, its square,
	// what is divided by a scale to give a factor, and the greatest factor.
	c [8]uint32
}

// NewWholeCodes returns the codes from lo to hi, nil if they have too many bits.
func NewWholeCodes(lo, hi float32) *WholeCodes {
	bits := int(math.Ceil(math.Log2(float64(hi-lo) + 1)))
	if bits > WholeBits {
		return nil
	}
	shift := min(13-bits, 9)
	unit := math.Ldexp(1, -shift)
	reach, width := max(float64(hi), float64(-lo))/unit+mostRest, 1.1*WholeRange
	limit := math.Floor(reach / width * (1 << 15))
	return &WholeCodes{[8]uint32{
		twice(int32(lo)), twice(int32(hi)), twice(1 << (shift - 1)), uint32(shift),
		math.Float32bits(float32(unit)), math.Float32bits(float32(unit * unit)),
		math.Float32bits(float32(math.Ldexp(1, 15+shift))), math.Float32bits(float32(min(limit, math.MaxInt16))),
	}}
}

func twice(x int32) uint32 { return uint32(uint16(x)) | uint32(x)<<16 }

func half(pair uint32, i int) int32 { return int32(int16(pair >> (16 * i))) }

func (c *WholeCodes) float(i int) float32 { return math.Float32frombits(c.c[i]) }

// WholeRows sets y [n/2, 16] to the values of x [n, 16] less from, times factor, rounded
// to whole numbers, which must fit 15 bits: two rows of x become the halves of one. n is
// even.
func WholeRows(y []uint32, x []float32, from, factor *Lanes) { active.wholeRows(y, x, from, factor) }

func wholeRowsOf(y []uint32, x []float32, from, factor *Lanes) {
	for i := range y {
		lane := i % LineLanes
		at := i/LineLanes*2*LineLanes + lane
		y[i] = uint32(uint16(wholeOf(x[at], from[lane], factor[lane]))) | uint32(wholeOf(x[at+LineLanes], from[lane], factor[lane]))<<16
	}
}

func wholeOf(x, from, factor float32) int32 {
	v := float32(float32(x-from) * factor)
	return int32(math.Float32bits(v+magic)) - 0x4B400000
}

// WholeLine is a line of each group in whole numbers, each twice in 16 bits: a value in
// units of the scale is ((value - From)·Factor + 2^14) >> 15.
type WholeLine struct{ From, Factor [LineLanes]uint32 }

// PlaceLines sets place to the line in whole numbers nearest to line, and line to what
// that is.
func PlaceLines(place *WholeLine, line *Line, c *WholeCodes) { active.placeLines(place, line, c) }

// Bounds of the beginning of a line.
const (
	leastFrom = -WholeRange / 4
	mostFrom  = WholeRange + WholeRange/4
)

func placeLines(place *WholeLine, line *Line, c *WholeCodes) {
	above, limit := c.float(6), c.float(7)
	for i, v := range line.From {
		from := float32(leastFrom)
		if v > from {
			from = v
		}
		if !(from < mostFrom) {
			from = mostFrom
		}
		factor := above / line.Scale[i]
		sign := math.Float32bits(factor) & (1 << 31)
		size := float32(1)
		if v := math.Float32frombits(math.Float32bits(factor) &^ (1 << 31)); v > size {
			size = v
		}
		if !(size < limit) {
			size = limit
		}
		factor = math.Float32frombits(math.Float32bits(size) | sign)
		from, factor = float32(from+magic)-magic, float32(factor+magic)-magic
		place.From[i], place.Factor[i] = twice(int32(from)), twice(int32(factor))
		line.From[i], line.Scale[i] = from, above/factor
	}
}

// SumWholeLines sets sums as [SumLines] does, for values y of [WholeRows] and lines
// that [PlaceLines] placed. A code is rounded up where it is as near to the next.
func SumWholeLines(sums *LineSums, y []uint32, place *WholeLine, c *WholeCodes) {
	*sums = LineSums{}
	for len(y) > 0 {
		n := min(len(y), wholeRows*LineLanes)
		active.addWholeLines(sums, y[:n], place, c)
		y = y[n:]
	}
}

func addWholeLines(sums *LineSums, y []uint32, place *WholeLine, c *WholeCodes) {
	lo, hi, up, shift := half(c.c[0], 0), half(c.c[1], 0), half(c.c[2], 0), c.c[3]
	unit, square := c.float(4), c.float(5)
	for lane := range LineLanes {
		from, factor := half(place.From[lane], 0), half(place.Factor[lane], 0)
		var q1, q2, r1, r2, rq int32
		for i := lane; i < len(y); i += LineLanes {
			pair := y[i]
			t := ((int32(int16(pair))-from)*factor + 1<<14) >> 15
			q := min(max((t+up)>>(shift&31), lo), hi)
			r := t - q<<(shift&31)
			t = ((int32(pair)>>16-from)*factor + 1<<14) >> 15
			p := min(max((t+up)>>(shift&31), lo), hi)
			s := t - p<<(shift&31)
			q1 += q + p
			q2 += q*q + p*p
			r1 += r + s
			r2 += r*r + s*s
			rq += r*q + s*p
		}
		sums.Q[lane] += float32(q1)
		sums.QQ[lane] += float32(q2)
		sums.R[lane] += float32(float32(r1) * unit)
		sums.RR[lane] += float32(float32(r2) * square)
		sums.RQ[lane] += float32(float32(rq) * unit)
	}
}
