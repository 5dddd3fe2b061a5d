package quant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestCodebookEqualsReference: levels and codes would not be what sdnq writes.
func TestCodebookEqualsReference(t *testing.T) {
	inputs, rows := readInputs(t), 0
	for _, l := range goldenLines(t, "codebook.tsv") {
		in, d := inputs[l[0]], parse(t, l[1])
		in = smallRows(in)
		if d.Bits > 8 { // of eight rows
			in.shape = []int{min(8, in.shape[0]), in.shape[1]}
			in.w = in.w[:in.shape[0]*in.shape[1]]
		}
		if testing.Short() && d.Bits > 8 {
			continue
		}
		requested, _ := strconv.Atoi(l[2])
		size := CodebookGroup(in.shape[1], requested, d)
		s, err := NewScheme(in.shape, Options{Dtype: d, GroupSize: size, ScaleDtype: safetensors.F32})
		if err != nil {
			t.Fatal(err)
		}
		n := CodebookLevels(d)
		codes, restored := make([]uint16, s.Values), make([]float32, s.Values)
		var fit Lloyd
		var levels []float32
		for at := 0; at < s.Values; at += s.Group {
			values := in.w[at : at+s.Group]
			fit.Fit(codes[at:], values, n, CodebookSteps)
			levels = append(levels, fit.Levels()...)
			LookUp(restored[at:at+s.Group], codes[at:at+s.Group], fit.Levels())
		}
		shape := []int{n}
		if size != -2 {
			shape = append(slices.Clone(s.scaleShape()[:len(s.scaleShape())-1]), n)
		}
		tensor := s.Tensors()[0]
		data := make([]byte, pack.Size(s.Values, d.Bits))
		pack.Pack(data, codes, d.Bits)
		got := []string{describe(tensor, data), describe(Tensor{Scale, safetensors.F32, shape}, bytesOf(levels))}
		if d.Divisor == d.Max { // else the reference reads other codes than it wrote
			got = append(got, "dq="+hashFloats(restored))
		}
		if want := l[3 : 3+len(got)]; !slices.Equal(got, want) {
			t.Errorf("%v: %v", l, got)
		}
		rows++
	}
	if rows < 400 {
		t.Errorf("%d golden rows", rows)
	}
}

// smallRows are the rows of an input whose sums do not overflow: with infinite
// levels the reference's search has no defined result.
func bytesOf(x []float32) []byte {
	b := make([]byte, 4*len(x))
	putFloats(b, x, safetensors.F32)
	return b
}

func smallRows(in input) input {
	var w []float32
	for row := range slices.Chunk(in.w, in.shape[1]) {
		if lo, hi := kernel.MinMax(row); max(-lo, hi) < 1e37 {
			w = append(w, row...)
		}
	}
	return input{[]int{len(w) / in.shape[1], in.shape[1]}, in.dtype, w}
}

// TestScalesEqualReference: quantized scales and zero points.
func TestScalesEqualReference(t *testing.T) {
	inputs, rows := readInputs(t), 0
	for _, l := range goldenLines(t, "scales.tsv") {
		in, d := inputs[l[0]], parse(t, l[3])
		group, _ := strconv.Atoi(l[2])
		q, err := Quantize(in.w, in.shape, Options{
			Dtype: parse(t, l[1]), GroupSize: group, ScaleDtype: safetensors.F32,
			ScaleStore: d, ZeroPointStore: d, CodebookScale: l[4] == "1", ExactReference: true,
		})
		if err != nil {
			t.Fatal(l, err)
		}
		var got []string
		for i, tensor := range q.Scheme.Tensors() {
			got = append(got, fmt.Sprintf("%s=%s", tensor.Role, describe(tensor, q.Data[i])))
		}
		slices.Sort(got)
		w, err := Dequantize(q)
		if err != nil {
			t.Fatal(err)
		}
		if l[4] == "0" || d.Divisor == d.Max { // overflowing codes have no level
			got = append(got, "dq="+hashFloats(w))
		}
		if want := l[5 : 5+len(got)]; !slices.Equal(got, want) {
			t.Errorf("%v:\n%v", strings.Join(l, " "), strings.Join(got, " "))
		}
		rows++
	}
	if rows < 200 {
		t.Errorf("%d golden rows", rows)
	}
}

// plainLloyd is the definition, step by step.
func plainLloyd(values []float32, n, steps int) (codes []uint16, levels []float32) {
	lo, hi := kernel.MinMax(values)
	s := float32(hi-lo) / float32(n-1)
	for j := range n {
		levels = append(levels, kernel.FMA(float32(j), s, lo))
	}
	codes = make([]uint16, len(values))
	for step := range steps + 1 {
		slices.SortStableFunc(levels, func(a, b float32) int { // as less alone orders them
			if a < b {
				return -1
			} else if b < a {
				return 1
			}
			return 0
		})
		sums, counts := make([]float32, n), make([]int, n)
		for i, v := range values {
			j := 0
			for j < n-1 && float32(levels[j+1]+levels[j])*0.5 < v {
				j++
			}
			codes[i] = uint16(j)
			counts[j]++
			sums[j] += v
		}
		for j, c := range counts {
			if c > 0 && step < steps {
				levels[j] = sums[j] / float32(c)
			}
		}
	}
	return codes, levels
}

// TestCodebookInParts: tiles would change the bytes. Values are such that
// guesses fail: equal levels, ties, a huge outlier, empty levels.
func TestCodebookInParts(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	makers := map[string]func(i int) float32{
		"normal":   func(int) float32 { return float32(r.NormFloat64()) },
		"grid":     func(int) float32 { return float32(r.IntN(9)) / 8 },
		"constant": func(int) float32 { return 0.3 },
		"outlier":  func(i int) float32 { return float32(r.NormFloat64()*1e-3) + float32(i/40*1000) },
		"close":    func(int) float32 { return math.Float32frombits(0x3F800000 + r.Uint32()%4) },
		"zeros":    func(int) float32 { return float32(math.Copysign(0, r.NormFloat64())) },
		"tiny":     func(int) float32 { return math.Float32frombits(r.Uint32() & 0x8000001F) },
	}
	for name, f := range makers {
		for _, n := range []int{2, 3, 4, 16, 256, 513, 2000} {
			values := make([]float32, 50+r.IntN(400))
			for i := range values {
				values[i] = f(i)
			}
			for _, steps := range []int{0, 1, 5, CodebookSteps} {
				codes, levels := plainLloyd(values, n, steps)
				var l Lloyd
				got := make([]uint16, len(values))
				l.Fit(got, values, n, steps)
				if !slices.Equal(got, codes) || hashFloats(l.Levels()) != hashFloats(levels) {
					t.Fatalf("%s, %d levels, %d steps: not the definition", name, n, steps)
				}
				lo, hi := kernel.MinMax(values)
				parts := NewLloyd(n, Range{lo, hi})
				for range steps {
					for part := range slices.Chunk(values, 37) {
						parts.Feed(part)
					}
					if !parts.Step() {
						break
					}
				}
				clear(got)
				for at := 0; at < len(values); at += 50 {
					to := min(at+50, len(values))
					parts.Codes(got[at:to], values[at:to])
				}
				if !slices.Equal(got, codes) || hashFloats(parts.Levels()) != hashFloats(levels) {
					t.Fatalf("%s, %d levels, %d steps: parts differ", name, n, steps)
				}
			}
		}
	}
}

// BenchmarkCodebook counts bytes of bfloat16 source.
func BenchmarkCodebook(b *testing.B) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, c := range []struct{ levels, group int }{{4, 128}, {16, 512}, {256, 4096}, {65536, 4096}} {
		values, codes := make([]float32, c.group), make([]uint16, c.group)
		for i := range values {
			values[i] = float32(r.NormFloat64())
		}
		b.Run(fmt.Sprintf("%d levels, group %d", c.levels, c.group), func(b *testing.B) {
			b.SetBytes(int64(2 * c.group))
			var l Lloyd
			for b.Loop() {
				l.Fit(codes, values, c.levels, CodebookSteps)
			}
		})
	}
}
