package kernel

import (
	"encoding/binary"
	"math"
)

// Rounding is to the values of a float format: to nearest, ties to even, as [Small]
// encodes them, and at most to the greatest one.
type Rounding struct {
	most, least float32 // the greatest value, and the least normal one
	magic       float32 // times a power of two, it rounds magnitudes from there to the next
}

// RoundingOf returns the rounding to a float with these bits of mantissa and that bias,
// of which most is the greatest value.
func RoundingOf(mantissa, bias uint32, most float32) *Rounding {
	return &Rounding{most, math.Float32frombits((128 - bias) << 23), math.Float32frombits((127 + 23 - mantissa) << 23)}
}

// ScaleErrors rates c scales for each of 16 groups of magnitudes x [n, 16]: with t a
// magnitude times the inverse [c, 16] of its group's scale and q the value nearest to
// t, errors [c, 16] are the sums of (t - q)², times the square [c, 16] that goes with
// the scale. Weights are like x; nil is 1 for each value. Sums begin with zero and add
// one value after the other; nothing is fused.
func ScaleErrors(errors, x, weights, inverses, squares []float32, f *Rounding) {
	inverses, squares = inverses[:len(errors)], squares[:len(errors)]
	if weights == nil {
		active.scaleErrors(errors, x, inverses, squares, f)
	} else {
		active.weightedScaleErrors(errors, x, weights[:len(x)], inverses, squares, f)
	}
}

func scaleErrors(errors, x, inverses, squares []float32, f *Rounding) {
	for at := 0; at < len(errors); at += LineLanes {
		var sums Lanes
		by := (*Lanes)(inverses[at:])
		for i := 0; i < len(x); i += LineLanes {
			for lane, v := range (*Lanes)(x[i:]) {
				r := f.rest(float32(v * by[lane]))
				sums[lane] += float32(r * r)
			}
		}
		for lane, sum := range sums {
			errors[at+lane] = sum * squares[at+lane]
		}
	}
}

func weightedScaleErrors(errors, x, weights, inverses, squares []float32, f *Rounding) {
	for at := 0; at < len(errors); at += LineLanes {
		var sums Lanes
		by := (*Lanes)(inverses[at:])
		for i := 0; i < len(x); i += LineLanes {
			m := (*Lanes)(weights[i:])
			for lane, v := range (*Lanes)(x[i:]) {
				r := f.rest(float32(v * by[lane]))
				sums[lane] += float32(float32(m[lane]*r) * r)
			}
		}
		for lane, sum := range sums {
			errors[at+lane] = sum * squares[at+lane]
		}
	}
}

// rest returns what rounding takes away from a magnitude. Magnitudes have the order of
// their bits.
func (f *Rounding) rest(t float32) float32 {
	q := min(math.Float32bits(t), math.Float32bits(f.most))
	binade := max(q, math.Float32bits(f.least)) & 0x7F800000
	magic := math.Float32frombits(binade + math.Float32bits(f.magic) - 127<<23)
	return t - (float32(math.Float32frombits(q)+magic) - magic)
}

// Magnitudes lays 16 groups of size values side by side: x [size, 16] has one magnitude
// of each. The groups lie one after the other in src.
func Magnitudes(x []float32, src []byte, raw Raw, size int) {
	active.magnitudes[raw](x[:size*LineLanes], src[:size*LineLanes*raw.Bytes()], size)
}

// magnitudesOf returns the portable Magnitudes for one form of raw values.
func magnitudesOf(raw Raw) func(x []float32, src []byte, size int) {
	from := magnitudesFrom(raw)
	return func(x []float32, src []byte, size int) { from(x, src, size, 0) }
}

// magnitudesFrom returns what does so from value first of each group on.
func magnitudesFrom(raw Raw) func(x []float32, src []byte, size, first int) {
	const mask = 1<<31 - 1
	if raw == RawBF16 {
		return func(x []float32, src []byte, size, first int) {
			for lane := range LineLanes {
				group := src[2*(lane*size+first) : 2*(lane+1)*size]
				for i := first*LineLanes + lane; len(group) >= 2; i, group = i+LineLanes, group[2:] {
					x[i] = math.Float32frombits((uint32(group[0])<<16 | uint32(group[1])<<24) & mask)
				}
			}
		}
	}
	return func(x []float32, src []byte, size, first int) {
		for lane := range LineLanes {
			group := src[4*(lane*size+first) : 4*(lane+1)*size]
			for i := first*LineLanes + lane; len(group) >= 4; i, group = i+LineLanes, group[4:] {
				x[i] = math.Float32frombits(binary.LittleEndian.Uint32(group) & mask)
			}
		}
	}
}
