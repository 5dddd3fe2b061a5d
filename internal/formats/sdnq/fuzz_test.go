package sdnq

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// FuzzQuantize takes any bytes as values: nothing panics, what is refused has
// a reason, and finite weights come back within the bound of their type.
func FuzzQuantize(f *testing.F) {
	r := rand.New(rand.NewPCG(15, 16))
	for i := range dtype.All() {
		raw := make([]byte, 4*96)
		kernel.NarrowF32(raw, tiletest.Sample(r, 96))
		if i%3 == 0 {
			for at := 0; at < len(raw); at += 4 {
				binary.LittleEndian.PutUint32(raw[at:], r.Uint32())
			}
		}
		f.Add(raw, uint8(i), int16(i%12-3), uint8(16+i%3*16), i%5 == 0)
	}
	types := dtype.All()
	f.Fuzz(func(t *testing.T, raw []byte, kind uint8, group int16, columns uint8, allow bool) {
		shape := []int{len(raw) / 4 / max(int(columns), 1), int(columns)}
		w := make([]float32, shape[0]*shape[1])
		kernel.WidenF32(w, raw)
		d := types[int(kind)%len(types)]
		o := Options{Dtype: d, GroupSize: int(group), ScaleDtype: safetensors.F32, AllowNonfinite: allow}
		q, err := Quantize(w, shape, o)
		var greatest float64
		for _, v := range w {
			greatest = max(greatest, math.Abs(float64(v)))
		}
		bad := math.IsNaN(greatest) || math.IsInf(greatest, 0)
		refused := !d.Storable() || len(w) == 0 || group < -2 || len(w)%pack.Values(min(d.Bits, 16)) != 0 || bad && !allow
		if (err != nil) != refused {
			t.Fatalf("%v %v group %d: error %v", shape, d, group, err)
		}
		if err == nil && greatest <= 1e38 { // beyond that ranges overflow
			checkError(t, q, w)
		}
		o.ScaleDtype, o.ExactReference = []safetensors.Dtype{safetensors.BF16, safetensors.F16}[kind%2], true
		if q, err := Quantize(w, shape, o); err == nil {
			if _, err := Dequantize(q); err != nil {
				t.Error(err)
			}
		}
	})
}

var families = []struct {
	dtype string
	group int
}{{"int8", -1}, {"uint4", 64}, {"float8_e4m3fn", -1}, {"float6_e3m2fn", 0}, {"uint3", 0}}

const benchmarkRows, benchmarkColumns = 32, 4096

// benchmarked is a scheme, a source in bfloat16 and room for its bytes.
func benchmarked(b *testing.B, name string, group int) (s *Scheme, source []byte, data [][]byte) {
	s, err := NewScheme([]int{benchmarkRows, benchmarkColumns}, Options{Dtype: golden.Dtype(b, name), GroupSize: group, ScaleDtype: safetensors.F32})
	if err != nil {
		b.Fatal(err)
	}
	source = make([]byte, 2*s.Values)
	r, w := rand.New(rand.NewPCG(17, 18)), make([]float32, s.Values)
	for i := range w {
		w[i] = float32(0.03 * r.NormFloat64())
	}
	kernel.NarrowBF16(source, w)
	b.SetBytes(int64(len(source)))
	b.ReportAllocs()
	return s, source, tiletest.Allocate(s, s.Values)
}

// BenchmarkEncode reads bfloat16 and stores a tile of 128Ki values; bytes per
// second are those of the source.
func BenchmarkEncode(b *testing.B) {
	for _, c := range families {
		b.Run(c.dtype, func(b *testing.B) {
			s, source, data := benchmarked(b, c.dtype, c.group)
			w, scratch := make([]float32, s.Values), new(tile.Scratch)
			for b.Loop() {
				kernel.WidenBF16(w, source)
				if err := (schemeRuns{s}).Run(data, 0, w, nil, scratch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecode restores the tile and writes bfloat16.
func BenchmarkDecode(b *testing.B) {
	for _, c := range families {
		b.Run(c.dtype, func(b *testing.B) {
			s, source, data := benchmarked(b, c.dtype, c.group)
			w, scratch := make([]float32, s.Values), new(tile.Scratch)
			kernel.WidenBF16(w, source)
			if err := (schemeRuns{s}).Run(data, 0, w, nil, scratch); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				s.Decode(w, data, tile.Line(0, len(w)), safetensors.BF16, scratch)
				kernel.NarrowBF16(source, w)
			}
		})
	}
}
