package kernel

import "math"

func minMax(x []float32) (lo, hi float32) {
	lo, hi = x[0], x[0]
	for _, v := range x {
		if v < lo {
			lo = v
		}
		if v > hi {
			hi = v
		}
		if v != v {
			return v, v
		}
	}
	return lo, hi
}

func divide(x []float32, zero, scale, lo, hi float32) {
	for i, v := range x {
		x[i] = clamp(float32(v-zero)/scale, lo, hi)
	}
}

func multiply(x []float32, factor, lo, hi float32) {
	for i, v := range x {
		x[i] = clamp(v*factor, lo, hi)
	}
}

// clamp returns NaN for NaN.
func clamp(v, lo, hi float32) float32 {
	if v < lo {
		v = lo
	}
	if v > hi {
		v = hi
	}
	return v
}

// roundInts adds 1.5·2^23, where single precision has steps of 1, so that the addition
// itself rounds to nearest even.
func roundInts(codes []uint16, x []float32, offset int32, nan uint16) {
	const magic = 0x1.8p23
	for i, v := range x {
		if v != v {
			codes[i] = nan
			continue
		}
		codes[i] = uint16(int32(math.Float32bits(v+magic)) - 0x4B400000 + offset)
	}
}

func decodeInts(dst []float32, codes []uint16, flip uint16, offset int32) {
	for i, c := range codes {
		dst[i] = float32(int32(c^flip) + offset)
	}
}

func scaleBy(x []float32, scale float32) {
	for i := range x {
		x[i] *= scale
	}
}

func scaleFrom(x []float32, scale, zero float32) {
	for i, v := range x {
		x[i] = FMA(v, scale, zero)
	}
}

// FMA returns x·y + z rounded once to single precision. The product is exact in double
// precision. The sum is rounded to odd there, so that rounding it again gives the right
// result.
func FMA(x, y, z float32) float32 {
	p := float64(float64(x) * float64(y))
	s := float64(p + float64(z))
	b := float64(s - p)
	rest := float64(p-float64(s-b)) + float64(float64(z)-b)
	bits := math.Float64bits(s)
	if rest != 0 && bits&1 == 0 && !math.IsInf(s, 0) && s == s {
		if (rest > 0) == (s > 0) {
			bits++
		} else {
			bits--
		}
	}
	return float32(math.Float64frombits(bits))
}
