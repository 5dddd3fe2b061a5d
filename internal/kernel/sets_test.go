package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"go/build"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// sets are the kernel sets built for this architecture. A file
// sets_<arch>_test.go appends its own from an init function; has says whether
// the machine can run them.
var sets = []candidate{{&portable, true}}

type candidate struct {
	*set
	has bool
}

// eachSet runs a test on every set that the machine has.
func eachSet(t *testing.T, f func(t *testing.T, k *set)) {
	for _, s := range sets {
		if s.has {
			t.Run(s.name, func(t *testing.T) { f(t, s.set) })
		}
	}
}

// TestNoSetIsLeftOut looks for the names of sets in the source: one that
// nothing here runs could write other bytes than the portable one.
func TestNoSetIsLeftOut(t *testing.T) {
	listed := map[string]bool{}
	for _, s := range sets {
		listed[s.name] = true
		if s.set == active && !s.has {
			t.Errorf("%s is in use, and its tests do not run", s.name)
		}
	}
	names := regexp.MustCompile(`\bname\s*[:=]\s*"(\w+)"`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found, ctx := 0, build.Default
	if len(others()) == 0 {
		ctx.BuildTags = []string{"purego"}
	}
	if err := Refused(); err != nil {
		t.Error(err)
	}
	for _, file := range files {
		built, err := ctx.MatchFile(".", file)
		if test, _ := filepath.Match("*_test.go", file); err != nil || !built || test {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range names.FindAllSubmatch(source, -1) {
			found++
			if !listed[string(m[1])] {
				t.Errorf("%s: set %s is not tested", file, m[1])
			}
		}
	}
	if found < len(sets) || !listed[Name()] {
		t.Errorf("%d sets in the source, %d tested, %s in use", found, len(sets), Name())
	}
}

// awkward are the values at which float code goes wrong.
func awkward() []float32 {
	x := []float32{0, 0.5, 1, 1.5, 2, 2.5, 3, 6, 127, 127.5, 128, 240, 248, 255, 256, 448, 464, 465, 480, 511.5,
		512, 32767, 32767.5, 32768, 57344, 61440, 65504, 65520, 65535, 65536, 1 << 23, 1<<24 + 2, 0x1p-6, 0x1p-9,
		0x1p-10, 0x1p-14, 0x1p-16, 0x1p-17, 0x1p-24, 0x1p-25, 0x1p-126, 0x1p-127, 0x1p-133, 0x1p-149,
		3.38953e38, math.MaxFloat32, float32(math.Inf(1)), float32(math.NaN()),
		math.Float32frombits(0x7F800001), math.Float32frombits(0x7FBFFFFF), math.Float32frombits(0x7FFFFFFF)}
	for _, v := range x {
		u := math.Float32bits(v)
		x = append(x, math.Float32frombits(u^1<<31), math.Float32frombits(u+1), math.Float32frombits(max(u, 1)-1))
	}
	return x
}

// buffers are what one call works on, with room before and behind.
type buffers struct {
	x     []float32
	codes []uint16
	bytes []byte
}

const room = 32

func newBuffers(r *rand.Rand, n int) buffers {
	b := buffers{make([]float32, n+2*room), make([]uint16, n+2*room), make([]byte, 4*(n+2*room))}
	values := awkward()
	for i := range b.x {
		if b.x[i] = values[r.IntN(len(values))]; r.IntN(2) == 0 {
			b.x[i] = float32(r.NormFloat64())
		}
		b.codes[i] = uint16(r.Uint32())
		binary.LittleEndian.PutUint32(b.bytes[4*i:], r.Uint32())
	}
	return b
}

func (b buffers) clone() buffers {
	return buffers{append([]float32(nil), b.x...), append([]uint16(nil), b.codes...), bytes.Clone(b.bytes)}
}

func (b buffers) slice(from, n int) buffers {
	return buffers{b.x[from : from+n], b.codes[from : from+n], b.bytes[4*from : 4*(from+n)]}
}

// differs names the first difference; payloads of NaN are free in arithmetic.
func (b buffers) differs(other buffers) string {
	for i, v := range b.x {
		if w := other.x[i]; math.Float32bits(v) != math.Float32bits(w) && (v == v || w == w) {
			return fmt.Sprintf("value %d is %x, want %x", i-room, math.Float32bits(v), math.Float32bits(w))
		}
		if b.codes[i] != other.codes[i] {
			return fmt.Sprintf("code %d is %#x, want %#x", i-room, b.codes[i], other.codes[i])
		}
	}
	if !bytes.Equal(b.bytes, other.bytes) {
		return "bytes differ"
	}
	return ""
}

// op is one kernel with fixed parameters.
type op struct {
	name string
	run  func(k *set, b buffers)
}

func clampAll(x []float32, lo, hi float32) {
	for i, v := range x {
		if x[i] = clamp(v, lo, hi); v != v {
			x[i] = 0
		}
	}
}

func ops() []op {
	list := []op{
		{"widenBF16", func(k *set, b buffers) { k.widenBF16(b.x, b.bytes) }},
		{"widenF16", func(k *set, b buffers) { k.widenF16(b.x, b.bytes) }},
		{"widenF32", func(k *set, b buffers) { k.widenF32(b.x, b.bytes) }},
		{"narrowBF16", func(k *set, b buffers) { k.narrowBF16(b.bytes, b.x) }},
		{"narrowF16", func(k *set, b buffers) { k.narrowF16(b.bytes, b.x) }},
		{"narrowF32", func(k *set, b buffers) { k.narrowF32(b.bytes, b.x) }},
		{"minMax", func(k *set, b buffers) {
			if len(b.x) > 0 {
				lo, hi := k.minMax(b.x)
				binary.LittleEndian.PutUint32(b.bytes, canonical(lo)) // of four bytes per value
				b.x[0] = hi
			}
		}},
		{"decodeInts", func(k *set, b buffers) { k.decodeInts(b.x, b.codes, 0, 0) }},
		{"decodeInts int16", func(k *set, b buffers) { k.decodeInts(b.x, b.codes, 0x8000, -32768) }},
	}
	for _, s := range []float32{1, 0.0078125, 3e-3, -7, 0, 0x1p-149, 1e38, float32(math.Inf(1)), float32(math.NaN())} {
		for _, z := range []float32{0, -0.25, -3e38} {
			list = append(list,
				op{fmt.Sprint("divide ", z, s), func(k *set, b buffers) { k.divide(b.x, z, s, -127, 128) }},
				op{fmt.Sprint("scaleFrom ", z, s), func(k *set, b buffers) { k.scaleFrom(b.x, s, z) }})
		}
		list = append(list,
			op{fmt.Sprint("multiply ", s), func(k *set, b buffers) { k.multiply(b.x, s, -448, 448) }},
			op{fmt.Sprint("scaleBy ", s), func(k *set, b buffers) { k.scaleBy(b.x, s) }})
	}
	for _, offset := range []int32{0, 1, 128, 32768} {
		list = append(list, op{fmt.Sprint("roundInts ", offset), func(k *set, b buffers) {
			for i, v := range b.x {
				b.x[i] = clamp(v, -65536, 65536)
			}
			k.roundInts(b.codes, b.x, offset, uint16(offset))
		}})
	}
	for _, n := range []int{4, 8, 16, 32, 64, 128} {
		for _, entry := range []float32{0.125, 0.35355338, 0.17675781} {
			if n&0x55555555 != 0 {
				entry = 0x1p-3
			}
			list = append(list,
				op{fmt.Sprint("rotate ", n, entry), func(k *set, b buffers) { k.rotate(b.x[:len(b.x)/n*n], n, entry) }},
				op{fmt.Sprint("rotateOnce ", n, entry), func(k *set, b buffers) { k.rotateOnce(b.x[:len(b.x)/n*n], n, entry) }})
		}
	}
	for name, f := range smalls {
		list = append(list,
			op{"encode " + name, func(k *set, b buffers) { k.encodeSmall(b.codes, b.x, f) }},
			op{"decode " + name, func(k *set, b buffers) {
				for i := range b.codes {
					b.codes[i] &= 2*f.SignBit - 1
				}
				k.decodeSmall(b.x, b.codes, f)
			}})
	}
	for _, p := range packedFormats() {
		list = append(list,
			op{fmt.Sprintf("encode %+v", *p), func(k *set, b buffers) {
				clampAll(b.x, -largest(p), largest(p))
				k.encodePacked(b.codes, b.x, p)
			}},
			op{fmt.Sprintf("decode %+v", *p), func(k *set, b buffers) {
				for i := range b.codes {
					b.codes[i] &= 1<<p.Bits - 1
				}
				k.decodePacked(b.x, b.codes, p)
			}})
	}
	return slices.Concat(list, productOps(), rawOps(), valueOps(), stripOps())
}

func canonical(v float32) uint32 {
	if v != v {
		return 0x7FC00000
	}
	return math.Float32bits(v)
}

// TestSetsEqualPortable compares whole buffers: files would depend on the
// machine, or a kernel would write beside its slice.
func TestSetsEqualPortable(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(1, 2))
		list, cases := ops(), 4
		if k == &portable || testing.Short() {
			cases = 1
		}
		for n := 0; n <= 130; n++ {
			if k == &portable && n%16 != 3 {
				continue // the machinery alone: nothing to compare
			}
			in := newBuffers(r, n)
			for i := range cases {
				at := room - (n+n/16+4*i)%16 // every alignment, with every n modulo 16
				for j, o := range list {
					if testing.Short() && n > 34 && (n+j)%5 > 0 { // which leaves each kernel every n modulo 16
						continue
					}
					got, want := in.clone(), in.clone()
					o.run(k, got.slice(at, n))
					o.run(&portable, want.slice(at, n))
					if d := got.differs(want); d != "" {
						t.Fatalf("%s of %d values at %d: %s", o.name, n, at-room, d)
					}
					if d := outside(in, got, at, n); d != "" {
						t.Fatalf("%s of %d values at %d, outside: %s", o.name, n, at-room, d)
					}
				}
			}
		}
	})
}

// outside compares what lies before and behind the slices.
func outside(in, got buffers, at, n int) string {
	if d := got.slice(0, at).differs(in.slice(0, at)); d != "" {
		return d
	}
	rest := len(in.x) - at - n
	return got.slice(at+n, rest).differs(in.slice(at+n, rest))
}
