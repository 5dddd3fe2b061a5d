package kernel

import (
	"encoding/binary"
	"math"
)

// Strip says what the 4-bit codes of eight rows stand for: (code − zero) · scale, the
// difference and the product rounded, and rounded to bfloat16 then. Products must be
// finite.
type Strip struct {
	Groups        []int32   // of each column
	Scales, Zeros []float32 // of the eight rows in each group
}

// StripRows is how many rows a strip has.
const StripRows = 8

// DecodeStripBF16 sets eight rows, stride bytes apart. words hold, for eight columns after
// another, a word for each row: of the codes of these columns, the first in the lowest
// bits.
func DecodeStripBF16(dst []byte, stride int, words []byte, s *Strip) {
	active.stripBF16(dst, stride, words, s)
}

// DecodeInterleavedBF16 sets eight rows, stride bytes apart. words hold a word for each
// column: of the codes of the even rows and then of the others, the first in the lowest
// bits. Sixteen columns, from a multiple of sixteen on, must be in the same group.
func DecodeInterleavedBF16(dst []byte, stride int, words []byte, s *Strip) {
	active.interleavedBF16(dst, stride, words, s)
}

// HasStrips reports whether the set in use has DecodeStripBF16 and DecodeInterleavedBF16,
// which must not be called otherwise. A set lacks them where decoding by rows is faster.
func HasStrips() bool { return active.stripBF16 != nil }

func stripBF16(dst []byte, stride int, words []byte, s *Strip) {
	for c := 0; c < len(words)/4; c += StripRows {
		for r := range StripRows {
			word := binary.LittleEndian.Uint32(words[4*(c+r):])
			to := dst[r*stride+2*c:][:2*StripRows]
			for k, g := range s.Groups[c : c+StripRows] {
				s.set(to[2*k:], word>>(4*k), int(g)*StripRows+r)
			}
		}
	}
}

// interleavedShift is where the code of each row lies in a word.
var interleavedShift = [StripRows]int{0, 16, 4, 20, 8, 24, 12, 28}

func interleavedBF16(dst []byte, stride int, words []byte, s *Strip) {
	for r, shift := range interleavedShift {
		to := dst[r*stride:]
		for c := range len(words) / 4 {
			s.set(to[2*c:], binary.LittleEndian.Uint32(words[4*c:])>>shift, int(s.Groups[c])*StripRows+r)
		}
	}
}

// set writes the value of a code, with a scale and a zero point.
func (s *Strip) set(dst []byte, code uint32, side int) {
	value := math.Float32bits((float32(code&15) - s.Zeros[side]) * s.Scales[side])
	binary.LittleEndian.PutUint16(dst, uint16((value+0x7FFF+value>>16&1)>>16))
}
