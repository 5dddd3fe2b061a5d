package kernel

// RotatedDecoder is [DecodeRotatedOnce] or [DecodeRotatedBF16].
type RotatedDecoder func(dst []float32, codes []byte, scales []float32, group int, v *Values, n int, entry float32)

// DecodeRotatedOnce is [DecodeBytes] without zero points, followed by [RotateOnce].
// group must be a multiple of n. If a value of v is a negative integer, all its
// integers must be those of a signed byte.
func DecodeRotatedOnce(dst []float32, codes []byte, scales []float32, group int, v *Values, n int, entry float32) {
	active.decodeRotatedOnce(dst, codes, scales, group, v, n, entry)
}

// DecodeRotatedBF16 is DecodeRotatedOnce with [Rotate], after values are rounded to
// bfloat16.
func DecodeRotatedBF16(dst []float32, codes []byte, scales []float32, group int, v *Values, n int, entry float32) {
	active.decodeRotatedBF16(dst, codes, scales, group, v, n, entry)
}

// decoding returns a RotatedDecoder that decodes, rounds and then rotates.
func decoding(decode func(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values), round func(x []float32), rotate func(x []float32, n int, entry float32)) RotatedDecoder {
	return func(dst []float32, codes []byte, scales []float32, group int, v *Values, n int, entry float32) {
		decode(dst, codes, scales, nil, group, v)
		round(dst)
		rotate(dst, n, entry)
	}
}

func unrounded([]float32) {}

// LevelRun is how many consecutive codes of [LookUpRotated] share 16 levels.
const LevelRun = 64

// LookUpRotated sets dst to the result of [Rotate] for the levels of codes, which are
// below 16. Each LevelRun of codes uses the next 16 levels, which must be exact in
// bfloat16.
func LookUpRotated(dst []float32, codes []byte, levels []float32, n int, entry float32) {
	active.lookUpRotated(dst, codes, levels, n, entry)
}

// lookingUp returns a LookUpRotated that looks up levels and then rotates them.
func lookingUp(lookUp func(dst []float32, codes []byte, levels []float32), rotate func(x []float32, n int, entry float32)) func(dst []float32, codes []byte, levels []float32, n int, entry float32) {
	return func(dst []float32, codes []byte, levels []float32, n int, entry float32) {
		for at := 0; at < len(codes); at += LevelRun {
			end, first := min(at+LevelRun, len(codes)), at/LevelRun*16
			lookUp(dst[at:end], codes[at:end], levels[first:first+16])
		}
		rotate(dst, n, entry)
	}
}
