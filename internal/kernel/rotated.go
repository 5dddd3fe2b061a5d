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

// LevelRun is how many codes have the same levels in [LookUpRotated].
const LevelRun = 64

// LookUpRotated sets dst to what [Rotate] makes of the levels of codes below 16.
// Each run of codes takes the next 16 levels, which are of bfloat16.
func LookUpRotated(dst []float32, codes []byte, levels []float32, n int, entry float32) {
	active.lookUpRotated(dst, codes, levels, n, entry)
}

// lookingUp is a rotation of levels.
func lookingUp(lookUp func(dst []float32, codes []byte, levels []float32), rotate func(x []float32, n int, entry float32)) func(dst []float32, codes []byte, levels []float32, n int, entry float32) {
	return func(dst []float32, codes []byte, levels []float32, n int, entry float32) {
		for at := 0; at < len(codes); at += LevelRun {
			end, first := min(at+LevelRun, len(codes)), at/LevelRun*16
			lookUp(dst[at:end], codes[at:end], levels[first:first+16])
		}
		rotate(dst, n, entry)
	}
}
