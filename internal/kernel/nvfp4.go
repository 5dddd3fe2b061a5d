package kernel

import (
	"encoding/binary"
	"math"
)

// NVFP4Table defines how blocks of 16 values become E2M1 codes and the code of a scale.
type NVFP4Table struct {
	// Codes are the codes of scales, by the bfloat16 bits of a block's greatest
	// magnitude.
	Codes [1 << 15]byte
	// Factors are, by the code of a scale, the factors that bring magnitudes below 32.
	Factors [1 << 8]float32
}

// NVFP4Bounds separate the codes: they are bounds of a magnitude times its factor of
// [NVFP4Table], and a product equal to a bound has the greater code.
var NVFP4Bounds = [...]int{1, 3, 5, 7, 10, 14, 20}

// nvfp4Levels are the codes by the whole part of the product.
var nvfp4Levels = func() (levels [32]uint16) {
	for _, bound := range NVFP4Bounds {
		for i := bound; i < len(levels); i++ {
			levels[i]++
		}
	}
	return levels
}()

// EncodeNVFP4 encodes blocks of 16 finite bfloat16 values as signed codes, two to a
// byte with the first in the high bits, and sets scales to the code of each block's
// scale.
func EncodeNVFP4(dst, scales, src []byte, f *NVFP4Table) {
	active.nvfp4Blocks(dst, scales, src, f)
}

// HasNVFP4 reports whether the set in use has EncodeNVFP4, which must not be called
// otherwise. A set lacks it where scaling and encoding are faster.
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

// code returns the code of a bfloat16 value. The product is exact in double precision.
func (f *NVFP4Table) code(value []byte, scale byte) byte {
	bits := binary.LittleEndian.Uint16(value)
	x := math.Float32frombits(uint32(bits&0x7FFF) << 16)
	return byte(nvfp4Levels[int32(float64(x)*float64(f.Factors[scale]))&31] | bits>>12&8)
}
