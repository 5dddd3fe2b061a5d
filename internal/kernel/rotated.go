package kernel

// RotatedDecoder is [DecodeRotatedOnce] or [DecodeRotatedBF16].
type RotatedDecoder func(dst []float32, codes []byte, scales []float32, group int, v *Values, n int, entry float32)

// DecodeRotatedOnce is [DecodeBytes], without zero points, and then [RotateOnce].
// Groups are multiples of n; whole numbers that are values, or could be, are those
// of a signed byte if any is negative.
func DecodeRotatedOnce(dst []float32, codes []byte, scales []float32, group int, v *Values, n int, entry float32) {
	active.decodeRotatedOnce(dst, codes, scales, group, v, n, entry)
}

// DecodeRotatedBF16 is DecodeRotatedOnce with [Rotate], of values rounded to bfloat16.
func DecodeRotatedBF16(dst []float32, codes []byte, scales []float32, group int, v *Values, n int, entry float32) {
	active.decodeRotatedBF16(dst, codes, scales, group, v, n, entry)
}

// decoding is a rotation of what decode gives, rounded by round.
func decoding(decode func(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values), round func(x []float32), rotate func(x []float32, n int, entry float32)) RotatedDecoder {
	return func(dst []float32, codes []byte, scales []float32, group int, v *Values, n int, entry float32) {
		decode(dst, codes, scales, nil, group, v)
		round(dst)
		rotate(dst, n, entry)
	}
}

func unrounded([]float32) {}
