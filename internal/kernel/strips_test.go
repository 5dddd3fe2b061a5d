package kernel

import (
	"encoding/binary"
	"math"
	"testing"
)

// stripOps decode a buffer's bytes as codes of eight rows, which become other bytes of it.
func stripOps() []op {
	decode := func(name string, kernel func(k *set) func([]byte, int, []byte, *Strip), unit int) op {
		return op{name, func(k *set, b buffers) {
			f := kernel(k)
			if f == nil { // a set without it
				f = kernel(&portable)
			}
			columns := len(b.bytes) / 4 / unit * unit
			stride := 2*columns + len(b.bytes)%3
			const groups = 5
			s := &Strip{Groups: make([]int32, columns), Scales: make([]float32, groups*StripRows), Zeros: make([]float32, groups*StripRows)}
			for c := range s.Groups {
				s.Groups[c] = int32((c/(unit*2)*7 + c%unit*(16-unit)) % groups)
			}
			for i := range s.Scales {
				s.Scales[i], s.Zeros[i] = float32(i-9)*0.0173, float32(i*5%17)
			}
			dst := make([]byte, StripRows*stride+8)
			f(dst, stride, b.bytes[:4*columns], s)
			for i := range len(dst) / 4 { // all of it counts, what is between rows too
				at := i % max(len(b.bytes)/4, 1) * 4
				if at+4 <= len(b.bytes) {
					sum := binary.LittleEndian.Uint32(b.bytes[at:])*31 + binary.LittleEndian.Uint32(dst[4*i:])
					binary.LittleEndian.PutUint32(b.bytes[at:], sum)
				}
			}
		}}
	}
	return []op{
		decode("stripBF16", func(k *set) func([]byte, int, []byte, *Strip) { return k.stripBF16 }, 8),
		decode("interleavedBF16", func(k *set) func([]byte, int, []byte, *Strip) { return k.interleavedBF16 }, 16),
	}
}

// TestStrips: the portable kernels say what codes stand for.
func TestStrips(t *testing.T) {
	s := &Strip{Groups: []int32{1, 0, 0, 1, 0, 1, 1, 0}, Scales: make([]float32, 16), Zeros: make([]float32, 16)}
	for i := range s.Scales {
		s.Scales[i], s.Zeros[i] = float32(i+1)/64, float32(i)
	}
	words := make([]byte, 32)
	for r := range StripRows {
		for c := range 8 {
			words[4*r+c/2] |= byte((3*r+5*c)%16) << (c % 2 * 4)
		}
	}
	even := make([]byte, 64)
	for c := range 8 {
		for i, r := range [...]int{0, 2, 4, 6, 1, 3, 5, 7} {
			even[4*c+i/2] |= byte((3*r+5*c)%16) << (i % 2 * 4)
		}
	}
	check := func(name string, dst []byte, group func(c int) int) {
		for r := range StripRows {
			for c := range 8 {
				side := group(c)*8 + r
				want := (float32((3*r+5*c)%16) - s.Zeros[side]) * s.Scales[side]
				if got := math.Float32frombits(uint32(binary.LittleEndian.Uint16(dst[20*r+2*c:])) << 16); got != want {
					t.Fatalf("%s: row %d column %d is %v, want %v", name, r, c, got, want)
				}
			}
		}
	}
	dst := make([]byte, 160)
	stripBF16(dst, 20, words, s)
	check("by columns", dst, func(c int) int { return int(s.Groups[c]) })
	one := &Strip{make([]int32, 16), s.Scales, s.Zeros}
	interleavedBF16(dst, 20, even[:32], one)
	check("interleaved", dst, func(int) int { return 0 })
}
