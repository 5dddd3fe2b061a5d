package kernel

import "math"

// RoundBF16 rounds values to bfloat16, to nearest even; NaN stays NaN.
func RoundBF16(x []float32) { active.roundBF16(x) }

// RoundF16 rounds values to half precision, to nearest even; NaN becomes the
// quiet one without sign.
func RoundF16(x []float32) { active.roundF16(x) }

func roundBF16(x []float32) {
	for i, v := range x {
		if u := math.Float32bits(v); u&0x7FFFFFFF <= 0x7F800000 {
			x[i] = math.Float32frombits((u + 0x7FFF + u>>16&1) &^ 0xFFFF)
		}
	}
}

func roundF16(x []float32) {
	for i, v := range x {
		if v != v {
			x[i] = math.Float32frombits(0x7FC00000)
		} else {
			x[i] = Half(ToHalf(v))
		}
	}
}
