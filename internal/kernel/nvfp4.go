package kernel

import (
	"encoding/binary"
	"math"
)

// NVFP4Table says how blocks of 16 values become E2M1 codes and a scale's code.
type NVFP4Table struct {
	// Codes are those of scales, by the greatest magnitude of a block as bits of
	// bfloat16.
	Codes [1 << 15]byte
	// Factors are what magnitudes are multiplied by, to below 32, by a scale's code.
	Factors [1 << 8]float32
}

// NVFP4Bounds are those between codes, of magnitudes multiplied by a factor of
// [NVFP4Table]: a product from a bound on has the next code.
var NVFP4Bounds = [...]int{1, 3, 5, 7, 10, 14, 20}

// nvfp4Levels are codes by whole parts of products.
var nvfp4Levels = func() (levels [32]uint16) {
	for _, bound := range NVFP4Bounds {
		for i := bound; i < len(levels); i++ {
			levels[i]++
		}
	}
	return levels
}()

// EncodeNVFP4 gives blocks of 16 finite bfloat16 values codes with their
// signs, two in a byte, the first in the high bits, and each block its scale's
// code.
func EncodeNVFP4(dst, scales, src []byte, f *NVFP4Table) {
	active.nvfp4Blocks(dst, scales, src, f)
}

// HasNVFP4 reports whether that is faster here than scaling and encoding.
func HasNVFP4() bool { return active.nvfp4Blocks != nil }

func nvfp4Blocks(dst, scales, src []byte, f *NVFP4Table) {
	for i := range scales {
		block, codes := src[32*i:32*i+32], dst[8*i:8*i+8]
		scales[i] = f.Codes[greatestBF16(block)]
		for j := range codes {
			codes[j] = f.code(block[4*j:], scales[i])<<4 | f.code(block[4*j+2:], scales[i])
		}
	}
}

// greatestBF16 returns the greatest magnitude of bfloat16 values, as bits.
func greatestBF16(values []byte) (greatest uint16) {
	for at := 0; at < len(values); at += 2 {
		greatest = max(greatest, binary.LittleEndian.Uint16(values[at:])&0x7FFF)
	}
	return greatest
}

// code is that of a bfloat16 value. Its product is exact in double precision.
func (f *NVFP4Table) code(value []byte, scale byte) byte {
	bits := binary.LittleEndian.Uint16(value)
	x := math.Float32frombits(uint32(bits&0x7FFF) << 16)
	return byte(nvfp4Levels[int32(float64(x)*float64(f.Factors[scale]))&31] | bits>>12&8)
}
