package pack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// codesOf subtracts a signed type's minimum, as the format stores it.
func codesOf(values []int, least int) []uint16 {
	codes := make([]uint16, len(values))
	for i, v := range values {
		codes[i] = uint16(v - least)
	}
	return codes
}

// ramp is start, start+step, … and, with last, one value more.
func ramp(start, step, n int, last ...int) []int {
	var values []int
	for i := range n {
		values = append(values, start+i*step)
	}
	return append(values, last...)
}

func packed(codes []uint16, bits int) []byte {
	dst := make([]byte, Size(len(codes), bits))
	Pack(dst, codes, bits)
	return dst
}

// words reads stored words as the numbers that the reference prints.
func words(b []byte, bits int) []int {
	var w []int
	for ; len(b) > 0; b = b[WordBytes(bits):] {
		switch WordBytes(bits) {
		case 1:
			w = append(w, int(b[0]))
		case 2:
			w = append(w, int(int16(binary.LittleEndian.Uint16(b))))
		case 8:
			w = append(w, int(binary.LittleEndian.Uint64(b)))
		}
	}
	return w
}

// TestWordsEqualReference: readers of SDNQ would see shuffled weights.
func TestWordsEqualReference(t *testing.T) {
	for _, c := range []struct {
		bits   int
		least  int
		values []int
		words  []int
	}{
		{3, 0, ramp(0, 1, 8), []int{152, 225, 234}},
		{3, -4, ramp(-4, 1, 8), []int{152, 225, 234}},
		{2, -2, ramp(-2, 1, 4), []int{228}},
		{5, 0, []int{1, 2, 3, 4, 5, 10, 20, 31}, []int{65, 130, 227, 164, 197}},
		{5, -16, []int{-16, -8, -1, 0, 1, 7, 8, 15}, []int{224, 8, 239, 208, 241}},
		{6, 0, []int{1, 2, 3, 43}, []int{129, 130, 195}},
		{6, -32, []int{-32, -1, 0, 31}, []int{192, 223, 224}},
		{7, 0, []int{1, 2, 3, 4, 5, 6, 7, 85}, []int{129, 2, 131, 4, 133, 6, 135}},
		{7, -64, []int{-64, -1, 0, 1, 2, 3, 4, 63}, []int{128, 191, 192, 193, 194, 195, 196}},
		{9, -256, ramp(-256, 32, 16), []int{0, 16416, -32704, -16288, 128, 16544, -32576, -16160, -86}},
		{10, -512, []int{-512, -1, 0, 1, 2, 3, 256, 511}, []int{3072, 511, -512, -7679, -3582}},
		{11, -1024, ramp(-1024, 137, 15, 1023), []int{16384, -30583, -12014, 6555, 25124, -21843, -3274, -1089, -17438, -794, -534}},
		{12, -2048, []int{-2048, -1, 0, 2047}, []int{-4096, -2049, -2048}},
		{13, -4096, ramp(-4096, 546, 15, 4095), []int{16384, -32222, -7100, -6554, 26760, -5462, -13108, -4370, -3824, -19662, -10924, -2186, -1640}},
		{14, -8192, []int{-8192, -1, 0, 1, 2, 3, 4, 8191}, []int{-16384, -8193, -8192, -8191, -8190, -8189, -8188}},
		{15, -16384, ramp(-16384, 2184, 15, 16383), []int{-32768, -30584, -28400, -26216, -24032, -21848, -19664, -17480, -15296, -13112, -10928, -8744, -6560, -4376, -2192}},
		{1, 0, []int{1, 0, 0, 0, 0, 0, 1, 1}, []int{193}},
		{4, -8, []int{3, -2, 1, -7}, []int{0x6B, 0x19}},
		// the codes of floats
		{4, 0, []int{0, 9, 1, 2, 3, 11, 7, 15}, []int{144, 33, 179, 247}},
		{6, 0, []int{31, 33, 12, 0}, []int{31, 33, 12}},
		{9, 0, append([]int{255, 368, 96, 58}, make([]int, 12)...), []int{255, 368, 96, 58, 0, 0, 0, 0, 0}},
		{16, 0, []int{15360, 65535, 168, 16968}, []int{15360, -1, 168, 16968}},
		{8, 0, []int{56, 157, 127, 1}, []int{56, 157, 127, 1}},
	} {
		got := words(packed(codesOf(c.values, c.least), c.bits), c.bits)
		if fmt.Sprint(got) != fmt.Sprint(c.words) {
			t.Errorf("%d bits, %v: %v, want %v", c.bits, c.values, got, c.words)
		}
	}
}

// TestEveryBitHasItsOwnPlace: two weights would overwrite each other.
func TestEveryBitHasItsOwnPlace(t *testing.T) {
	for bits := 1; bits <= 16; bits++ {
		taken := map[int]string{}
		for v := range Values(bits) {
			for b := range bits {
				codes := make([]uint16, Values(bits))
				codes[v] = 1 << b
				set := 0
				for i, w := range packed(codes, bits) {
					for at := range 8 {
						if w>>at&1 == 0 {
							continue
						}
						set++
						if other := taken[8*i+at]; other != "" {
							t.Errorf("%d bits: bit %d of value %d lies where %s does", bits, b, v, other)
						}
						taken[8*i+at] = fmt.Sprintf("bit %d of value %d", b, v)
					}
				}
				if set != 1 {
					t.Errorf("%d bits: bit %d of value %d sets %d bits", bits, b, v, set)
				}
			}
		}
		if all := 8 * Size(Values(bits), bits); len(taken) != all && bits > 1 {
			t.Errorf("%d bits: %d of %d stored bits are used", bits, len(taken), all)
		}
	}
}

// TestBlocksAreIndependent: a weight packed in pieces would have other bytes.
func TestBlocksAreIndependent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for bits := 1; bits <= 16; bits++ {
		for blocks := range 40 {
			codes := make([]uint16, blocks*Values(bits))
			for i := range codes {
				codes[i] = uint16(r.UintN(1 << bits))
			}
			whole := packed(codes, bits)
			var parts []byte
			for i := 0; i < len(codes); i += Values(bits) {
				parts = append(parts, packed(codes[i:i+Values(bits)], bits)...)
			}
			if !bytes.Equal(whole, parts) {
				t.Errorf("%d bits, %d blocks: %x, block by block %x", bits, blocks, whole, parts)
			}
			again := make([]uint16, len(codes))
			for i := range again {
				again[i] = 0xFFFF // reused memory
			}
			if Unpack(again, whole, bits); fmt.Sprint(again) != fmt.Sprint(codes) {
				t.Errorf("%d bits, %d blocks: %v come back as %v", bits, blocks, codes, again)
			}
		}
	}
}

// TestDirtyMemoryIsOverwritten: a file would hold bytes of another weight.
func TestDirtyMemoryIsOverwritten(t *testing.T) {
	for bits := 1; bits <= 16; bits++ {
		codes := make([]uint16, 3*Values(bits))
		dst := bytes.Repeat([]byte{0xFF}, Size(len(codes), bits)+1)
		Pack(dst, codes, bits)
		clean := dst[:len(dst)-1]
		if !bytes.Equal(clean, make([]byte, len(clean))) || dst[len(clean)] != 0xFF {
			t.Errorf("%d bits: zeros are packed to %x", bits, dst)
		}
	}
}

// TestOverflowSpillsAsInReference: exact mode stores the value 2^bits of uint9
// to uint15 as sdnq does, itself lost and one bit of a neighbour set.
func TestOverflowSpillsAsInReference(t *testing.T) {
	for _, c := range []struct{ bits, at, neighbour, bit int }{
		{9, 0, 8, 0}, {12, 0, 3, 8}, {15, 0, 15, 14}, {10, 2, 7, 0}, {11, 3, 11, 0}, {13, 1, 14, 0}, {14, 6, 7, 0},
	} {
		codes := make([]uint16, Values(c.bits))
		codes[c.at] = 1 << c.bits
		want := make([]uint16, Values(c.bits))
		want[c.neighbour] = 1 << c.bit
		got := make([]uint16, len(codes))
		if Unpack(got, packed(codes, c.bits), c.bits); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("uint%d: value %d overflows into %v, want %v", c.bits, c.at, got, want)
		}
	}
}

func FuzzPackUnpack(f *testing.F) {
	for bits := range uint8(16) {
		f.Add(bits, []byte("any sixteen bytes, any sixteen bytes"))
	}
	f.Fuzz(func(t *testing.T, width uint8, data []byte) {
		bits := int(width%16) + 1
		codes := make([]uint16, len(data)/2/Values(bits)*Values(bits))
		for i := range codes {
			codes[i] = binary.LittleEndian.Uint16(data[2*i:]) & (1<<bits - 1)
		}
		stored, again := packed(codes, bits), make([]uint16, len(codes))
		if Unpack(again, stored, bits); fmt.Sprint(again) != fmt.Sprint(codes) {
			t.Errorf("%d bits: %v come back as %v", bits, codes, again)
		}
		// Stored words of any content come back too, but for the unused bits of width 1.
		if n := len(data) / (Words(bits) * WordBytes(bits)); bits > 1 {
			src, codes := data[:n*Words(bits)*WordBytes(bits)], make([]uint16, n*Values(bits))
			if Unpack(codes, src, bits); !bytes.Equal(packed(codes, bits), src) {
				t.Errorf("%d bits: %x is unpacked to %v", bits, src, codes)
			}
		}
	})
}

// Bytes per second are those of the bfloat16 source.
func BenchmarkPack(b *testing.B) { benchmark(b, Pack) }
func BenchmarkUnpack(b *testing.B) {
	benchmark(b, func(dst []byte, c []uint16, n int) { Unpack(c, dst, n) })
}

func benchmark(b *testing.B, f func([]byte, []uint16, int)) {
	for bits := 1; bits <= 16; bits++ {
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			codes := make([]uint16, 1<<17)
			for i := range codes {
				codes[i] = uint16(i) & (1<<bits - 1)
			}
			dst := packed(codes, bits)
			b.SetBytes(2 << 17)
			for b.Loop() {
				f(dst, codes, bits)
			}
		})
	}
}
