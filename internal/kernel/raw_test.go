package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

// raws are the forms that kernels read.
var raws = map[string]Raw{"bf16": RawBF16, "f32": RawF32}

// fill writes the values of a buffer to its bytes.
func (b buffers) fill(raw Raw) {
	if raw == RawBF16 {
		narrowBF16(b.bytes, b.x)
	} else {
		narrowF32(b.bytes, b.x)
	}
}

// room for codes of one byte, with the rest of the buffer behind them.
func (b buffers) byteCodes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(b.codes))), len(b.codes))
}

// groupSizes are those that a test divides values into, 0 for all in one.
var groupSizes = []int{0, 2, 7, 16, 17, 32, 48, 64}

// grouped returns how many groups of that size there are, and the size.
func (b buffers) grouped(size int) (groups, group int) {
	if size == 0 {
		size = max(len(b.x), 2)
	}
	return len(b.x) / size, size
}

func rawOps() (list []op) {
	for name, raw := range raws {
		for _, size := range groupSizes {
			list = append(list,
				op{fmt.Sprint("ranges ", name, size), func(k *set, b buffers) {
					b.fill(raw)
					groups, group := b.grouped(size)
					k.ranges[raw](b.x[:groups], b.x[groups:2*groups], b.bytes[:groups*group*raw.Bytes()], group)
				}},
				op{fmt.Sprint("absMax ", name, size), func(k *set, b buffers) {
					b.fill(raw)
					groups, group := b.grouped(size)
					k.absMax[raw](b.x[:groups], b.bytes[:groups*group*raw.Bytes()], group)
				}},
				op{fmt.Sprint("ranges of few values ", name, size), func(k *set, b buffers) {
					for i, v := range b.x { // often the same sign, and zeros of both
						b.x[i] = float32(math.Copysign(max(math.Round(float64(clamp(v, -2, 2))), 0), float64(v)))
					}
					b.fill(raw)
					groups, group := b.grouped(size)
					k.ranges[raw](b.x[:groups], b.x[groups:2*groups], b.bytes[:groups*group*raw.Bytes()], group)
				}})
			for _, sign := range []float64{1, -1} {
				list = append(list, op{fmt.Sprint("ranges of one sign ", name, size, sign), func(k *set, b buffers) {
					for i, v := range b.x { // zeros and NaN, which are looked at again, but in few
						if v = float32(math.Copysign(float64(v), sign)); (v == 0 || v != v) && i%64 != 0 {
							v = float32(math.Copysign(float64(i+1), sign))
						}
						b.x[i] = v
					}
					b.fill(raw)
					groups, group := b.grouped(size)
					k.ranges[raw](b.x[:groups], b.x[groups:2*groups], b.bytes[:groups*group*raw.Bytes()], group)
				}})
			}
			list = append(list, encodeOps(name, raw, size)...)
		}
	}
	for _, divisor := range []float32{1, 15, 448} {
		list = append(list, op{fmt.Sprint("spans ", divisor), func(k *set, b buffers) {
			n := len(b.x) / 4
			all := k.spans(b.x[:n], b.x[n:2*n], b.x[2*n:3*n], b.x[3*n:4*n], divisor)
			if len(b.codes) > 0 && all {
				b.codes[0] ^= 1
			}
		}}, op{fmt.Sprint("spans that divide ", divisor), func(k *set, b buffers) {
			for i, v := range b.x {
				if a := float32(math.Abs(float64(v))); a < 0x1p-60 || a > 0x1p60 || v != v {
					b.x[i] = v + 0.5
				}
				if i >= len(b.x)/4*3 {
					b.x[i] = float32(math.Abs(float64(b.x[i]))) + 0x1p61
				}
			}
			n := len(b.x) / 4
			if k.spans(b.x[:n], b.x[n:2*n], b.x[2*n:3*n], b.x[3*n:4*n], divisor) && n > 0 {
				b.codes[0] ^= 1
			}
		}})
	}
	for _, few := range []bool{false, true} {
		list = append(list, op{fmt.Sprint("powerSteps ", few), func(k *set, b buffers) {
			for i, v := range b.x {
				if v = float32(math.Abs(float64(v))); few && (v != v || v < 0x1p-60 || v > 0x1p60) {
					v = 448 * float32(1+i)
				}
				b.x[i] = v
			}
			n := len(b.x) / 3
			all := k.powerSteps(b.byteCodes()[:n], b.x[:n], b.x[n:2*n], b.x[2*n:3*n], 448)
			if len(b.codes) > 0 && all {
				b.codes[len(b.codes)-1] ^= 1
			}
		}})
	}
	list = append(list, op{"nvfp4Blocks", func(k *set, b buffers) {
		for i := range len(b.bytes) / 2 { // finite
			if b.bytes[2*i+1]&0x7F == 0x7F {
				b.bytes[2*i+1] ^= 0x40
			}
		}
		encode, to := k.nvfp4Blocks, b.byteCodes()
		if encode == nil {
			encode = nvfp4Blocks
		}
		n := len(to) / 9
		encode(to[:8*n], to[8*n:9*n], b.bytes[:32*n], nvfp4BlocksUnderTest())
	}})
	for _, near := range []bool{false, true} { // of all magnitudes, or of 16 exponents
		list = append(list, op{fmt.Sprint("mxfp8Blocks ", near), func(k *set, b buffers) {
			for i := range len(b.bytes) / 2 {
				if bits := b.bytes[2*i:]; near {
					exponent := max((i/32*33+23)%256-int(bits[1]&15), 0)
					bits[0], bits[1] = bits[0]&0x7F|byte(exponent<<7), bits[1]&0x80|byte(exponent>>1)
				}
			}
			encode, n := k.mxfp8Blocks, len(b.bytes)/64
			if encode == nil {
				encode = mxfp8Blocks
			}
			encode(AsBytes(b.x)[:32*n], b.byteCodes()[:n], b.bytes[:64*n]) // no codes lie like NaN
		}})
	}
	return append(list, packOps()...)
}

// nvfp4BlocksUnderTest bring magnitudes below a power of two, from the greatest of a
// block, to below 25.3.
var nvfp4BlocksUnderTest = sync.OnceValue(func() *NVFP4Table {
	f := new(NVFP4Table)
	for bits := range f.Codes {
		f.Codes[bits] = byte(bits >> 7)
	}
	for code := 8; code < 255; code++ {
		f.Factors[code] = 25.3 * math.Float32frombits(uint32(253-code)<<23)
	}
	return f
})

// encodeOps are those of groups of one size, with zero points and without.
func encodeOps(name string, raw Raw, size int) (list []op) {
	for i, f := range intsUnderTest {
		for _, shifted := range []bool{false, true} {
			list = append(list, op{fmt.Sprint("encodeInts ", name, size, *f, shifted), func(k *set, b buffers) {
				steps, group := b.steps(raw, size, i, f.Multiply, shifted)
				k.encodeInts[raw](b.byteCodes()[:len(steps.Scales)*group], b.bytes, steps, group, f)
			}})
		}
	}
	if size != 0 && size != 7 && size != 48 {
		return list // how groups are cut is that of whole numbers
	}
	for i, f := range floatsUnderTest() {
		for _, shifted := range []bool{false, true} {
			if size != 7 && shifted != (f.packed != nil && f.packed.Unsigned) {
				continue // as a rule, what has a sign has no zero point
			}
			list = append(list, op{fmt.Sprint("encodeFloats ", name, size, i, shifted), func(k *set, b buffers) {
				steps, group := b.steps(raw, size, i, f.multiply, shifted)
				k.encodeFloats[raw](b.byteCodes()[:len(steps.Scales)*group], b.bytes, steps, group, f)
			}})
		}
	}
	return list
}

var intsUnderTest = []*Ints{{-128, 127, 0, false}, {0, 15, 0, false}, {-4, 3, 4, false}, {0, 255, 0, false}, {-127, 127, 0, true}, {-4, 3, 4, true}}

// floatsUnderTest has every native and every packed float of a byte or less.
func floatsUnderTest() (list []*Floats) {
	for _, f := range []*Small{E4M3, E5M2, E4M3FNUZ, E5M2FNUZ, E2M1} {
		largest := map[*Small]float32{E4M3: 448, E5M2: 57344, E4M3FNUZ: 240, E5M2FNUZ: 57344, E2M1: 6}[f]
		list = append(list, SmallFloats(f, largest, false), SmallFloats(f, largest, true))
	}
	for _, p := range packedFormats() {
		if p.Bits > 8 {
			continue
		}
		lo := -largest(p)
		if p.Unsigned {
			lo = 0
		}
		list = append(list, PackedFloats(p, lo, largest(p)))
	}
	return list
}

func packOps() (list []op) {
	pack := func(name string, bits, multiple int, pack func(k *set, dst, codes []byte)) {
		list = append(list, op{name, func(k *set, b buffers) {
			codes := bytes.Clone(b.byteCodes())
			for i := range codes {
				codes[i] &= 1<<bits - 1
			}
			pack(k, b.bytes, codes[:len(codes)/multiple*multiple])
		}})
	}
	pack("packFours", 8, 2, func(k *set, dst, codes []byte) { k.packFours(dst[:len(codes)/2], codes) })
	pack("packFoursHigh", 8, 2, func(k *set, dst, codes []byte) { k.packFoursHigh(dst[:len(codes)/2], codes) })
	pack("packTwos", 8, 4, func(k *set, dst, codes []byte) { k.packTwos(dst[:len(codes)/4], codes) })
	pack("splitFours", 8, 2, func(k *set, dst, src []byte) { k.splitFours(dst[:2*len(src)], src) })
	pack("splitFoursHigh", 8, 2, func(k *set, dst, src []byte) { k.splitFoursHigh(dst[:2*len(src)], src) })
	for size := 1; size <= 8; size++ {
		m := NewMerge(size)
		for i := range 8 {
			m.Add(7*i, uint64(0x0102040810204080)>>i&(1<<(8*size-1)-1))
		}
		pack(fmt.Sprint("merge ", size), 8, 8, func(k *set, dst, codes []byte) { k.merge(dst[:len(codes)/8*size], codes, m) })
	}
	return list
}

// steps fills the bytes with finite values and returns a step for each group.
func (b buffers) steps(raw Raw, size, seed int, multiply, shifted bool) (Steps, int) {
	for i, v := range b.x {
		if v != v || v > 0x1p90 || v < -0x1p90 {
			b.x[i] = float32(i)
		}
	}
	b.fill(raw)
	groups, group := b.grouped(size)
	scales := []float32{0.0078125, 3e-3, 1, 0x1p-80, 0x1p80, 0x1.fffffep-4, 0x1.000002p-9, 7.3e-3}
	zeros := []float32{0, -0.25, 1, float32(math.Copysign(0, -1)), -1e-30}
	if !shifted {
		zeros = zeros[:1]
	}
	steps := Steps{}.Sized(groups)
	for i := range groups {
		if !steps.Set(i, zeros[(i+seed)%len(zeros)], scales[(i+len(b.x)+seed)%len(scales)]) {
			panic("scale too extreme")
		}
	}
	if multiply {
		steps.Zeros, steps.Inverses = nil, nil
	}
	return steps, group
}

// TestCodesOfEveryValue: a weight with the one value whose code is wrong would
// be another on another machine.
func TestCodesOfEveryValue(t *testing.T) {
	src := make([]byte, 0, 2<<16)
	for i := range 1 << 16 {
		if i&0x7F80 != 0x7F80 { // finite
			src = binary.LittleEndian.AppendUint16(src, uint16(i))
		}
	}
	n := len(src) / 2
	wide, got, want := make([]float32, n), make([]byte, n), make([]byte, n)
	widenBF16(wide, src)
	eachSet(t, func(t *testing.T, k *set) {
		if k == &portable {
			t.Skip("nothing to compare with")
		}
		scales := []float32{1.37, 1, 0x1p40}
		if testing.Short() {
			scales = scales[:1]
		}
		for _, scale := range scales {
			steps := Steps{}.Sized(1)
			steps.Set(0, 0, scale)
			for raw, values := range [][]byte{src, AsBytes(wide)} {
				compare := func(name string, encode func(k *set, codes []byte)) {
					encode(k, got)
					encode(&portable, want)
					for i, c := range got {
						if c != want[i] {
							t.Fatalf("%s, scale %v: %v is %#x, want %#x", name, scale, wide[i], c, want[i])
						}
					}
				}
				for _, f := range intsUnderTest {
					compare(fmt.Sprint(*f), func(k *set, codes []byte) { k.encodeInts[raw](codes, values, steps, n, f) })
				}
				for i, f := range floatsUnderTest() {
					compare(fmt.Sprint("float ", i), func(k *set, codes []byte) { k.encodeFloats[raw](codes, values, steps, n, f) })
				}
			}
		}
	})
}

// TestSetsOfThisMachine: a set that the machine has and that is not taken for
// one would go untested, and unused.
func TestSetsOfThisMachine(t *testing.T) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Skip("no list of the processor's instructions")
	}
	_, flags, _ := bytes.Cut(info, []byte("\nflags"))
	flags, _, _ = bytes.Cut(flags, []byte("\n"))
	needs := map[string]string{"avx2": "avx2 fma f16c", "avx512": "avx2 fma f16c avx512f avx512bw avx512dq avx512vl",
		"neon": ""} // Go needs it itself
	for _, c := range others() {
		list, known := needs[c.name]
		want := known
		for _, n := range strings.Fields(list) {
			want = want && bytes.Contains(append(flags, ' '), []byte(" "+n+" "))
		}
		if !known || c.has != want {
			t.Errorf("%s: in use %v, want %v", c.name, c.has, want)
		}
	}
}

// TestChoose: TENSORPRESS_CPU is how users and CI get a set, and a wrong name
// must not pass unseen.
func TestChoose(t *testing.T) {
	for _, c := range choices() {
		got, err := choose(c.name)
		if c.has != (err == nil) || c.has && got != c.set {
			t.Errorf("choose(%q): %v, %v", c.name, got.name, err)
		}
	}
	best, err := choose("")
	if err != nil {
		t.Error(err)
	}
	if got, err := choose("mmx"); err == nil || got != best || !strings.Contains(err.Error(), "want generic") {
		t.Errorf("choose(mmx): %s, %v", got.name, err)
	}
}

// TestSmallestGroups: the values that a kernel takes a step of must not reach
// beyond a short slice.
func TestSmallestGroups(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		for name, raw := range raws {
			lo, hi := make([]float32, 1), make([]float32, 1)
			k.ranges[raw](nil, nil, nil, 16)
			k.absMax[raw](nil, nil, 64)
			k.encodeInts[raw](nil, nil, Steps{}, 64, &Ints{})
			k.ranges[raw](lo, hi, AsBytes([]float32{1}), 1)
			if k.absMax[raw](lo, AsBytes([]float32{-2, 1}), 2); raw == RawF32 && (lo[0] != 2 || hi[0] != 1) {
				t.Errorf("%s: greatest magnitude %v, greatest value %v", name, lo[0], hi[0])
			}
		}
	})
}

// TestRangesOfManyGroups: one group among many that does not go from below
// zero to above it must not be taken for the others' like, nor one group's
// range for another's.
func TestRangesOfManyGroups(t *testing.T) {
	const groups = 35
	zero, nan := float32(math.Copysign(0, -1)), float32(math.NaN())
	odd := [][3]float32{{0, zero, 1}, {zero, 0, 1}, {0, zero, -1}, {zero, 0, -1}, {0, zero, 0}, {1, 2, 3}, {-1, -2, -3},
		{nan, -1, 1}, {1, -1, -nan}}
	eachSet(t, func(t *testing.T, k *set) {
		for name, raw := range raws {
			for at := range groups * len(odd) {
				group := []int{16, 32, 48, 64, 80}[(at+at/groups)%5]
				b := buffers{x: make([]float32, groups*group), bytes: make([]byte, 4*groups*group)}
				for i := range b.x {
					b.x[i] = float32(1+i%7+i/group) * float32(1-i%2*2)
					if i/group == at%groups {
						b.x[i] = odd[at/groups][i%group%3]
					}
				}
				b.fill(raw)
				var got, want [3*groups + 1]float32
				measure := func(k *set, to []float32) {
					k.ranges[raw](to[:groups], to[groups:2*groups], b.bytes, group)
					k.absMax[raw](to[2*groups:3*groups], b.bytes, group)
				}
				measure(k, got[:])
				measure(&portable, want[:])
				for i, v := range want {
					if canonical(got[i]) != canonical(v) {
						t.Fatalf("%s of %d, group %d of %v: result %d is %v, want %v", name, group, at%groups, odd[at/groups], i, got[i], v)
					}
				}
			}
		}
	})
}
