package sdnq

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestRotatedCodesEqualReference: what is written after a rotation.
func TestRotatedCodesEqualReference(t *testing.T) {
	same, scales, rows := 0, 0, 0
	golden.RotationRows(t, "int8", func(name string, in golden.Input, n int, rest []string) {
		w := append([]float32(nil), in.W...)
		rotation.Rotate(w, n)
		q, err := Quantize(w, in.Shape, Options{Dtype: golden.Dtype(t, "int8"), GroupSize: -1, ScaleDtype: safetensors.F32, AllowNonfinite: true})
		if err != nil {
			t.Fatal(err)
		}
		rows++
		tensors := q.Scheme.Tensors()
		code, scale := "weight="+golden.Describe(tensors[0], q.Data[0]) == rest[0], "scale="+golden.Describe(tensors[1], q.Data[1]) == rest[1]
		if code {
			same++
		}
		if scale {
			scales++
		}
		// other orders: 8, 256, few rows, and 4 where products underflow
		other := n == 8 || n == 256 || in.Shape[0]*in.Shape[1]/n < 48 || n == 4 && name == "edge.f32"
		if !other && !(code && scale) {
			t.Errorf("%s, %d: codes equal %v, scales %v", name, n, code, scale)
		}
	})
	t.Logf("codes %d, scales %d of %d", same, scales, rows)
}

// TestDecodeRotatesBack: what is decoded and rotated in one step must be what comes
// of one step after the other.
func TestDecodeRotatesBack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, o := range []Options{
		{Dtype: golden.Dtype(t, "int8"), GroupSize: -1}, {Dtype: golden.Dtype(t, "int8"), GroupSize: -2}, {Dtype: golden.Dtype(t, "int5"), GroupSize: 256},
		{Dtype: golden.Dtype(t, "int8"), GroupSize: 64}, {Dtype: golden.Dtype(t, "uint4"), GroupSize: 64}, {Dtype: golden.Dtype(t, "float8_e4m3fn"), GroupSize: -1},
		{Dtype: golden.Dtype(t, "uint4"), GroupSize: 384}, {Dtype: golden.Dtype(t, "int3"), GroupSize: -1}, {Dtype: golden.Dtype(t, "float4_e2m1fn"), GroupSize: 128},
		{Dtype: golden.Dtype(t, "uint4"), GroupSize: 64, ScaleDtype: safetensors.BF16}, {Dtype: golden.Dtype(t, "int8"), GroupSize: -1, ScaleDtype: safetensors.BF16}, {Dtype: golden.Dtype(t, "int4"), GroupSize: -1, Rank: 4},
	} {
		for _, n := range []int{64, 128, 256} {
			o.Hadamard = n
			if o.ScaleDtype == 0 {
				o.ScaleDtype = safetensors.F32
			}
			shape := []int{8, 768}
			w := make([]float32, shape[0]*shape[1])
			for i := range w {
				w[i] = float32(r.NormFloat64())
			}
			q, err := Quantize(w, shape, o)
			if err != nil {
				t.Fatal(err)
			}
			s, flat := q.Scheme, *q.Scheme
			flat.Hadamard = 0
			if s.Hadamard != n {
				t.Fatalf("%d is rotated by %d", n, s.Hadamard)
			}
			for _, out := range []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16} {
				want, got := make([]float32, len(w)), make([]float32, len(w))
				flat.Decode(want, q.Data, tile.Line(0, len(want)), out, new(tile.Scratch))
				floats.RoundAll(want, out)
				near := slices.Clone(want)
				rotation.RotateTo(want, n, out)
				piece := tile.LCM(s.align(), 256)
				for start := 0; start < len(got); start += piece { // which begins within groups
					end := start + piece
					parts := make([][]byte, len(q.Data))
					for i := range parts {
						span := s.Needed(i, tile.Line(start, end))[0]
						parts[i] = q.Data[i][span.Offset : span.Offset+span.Size]
					}
					s.Decode(got[start:end], parts, tile.Line(start, end), out, new(tile.Scratch))
				}
				floats.RoundAll(got, out)
				if !bytes.Equal(golden.BytesOf(got), golden.BytesOf(want)) {
					t.Errorf("%s, groups of %d, %d rotated, to %s: other values", o.Dtype.Name, o.GroupSize, n, out)
				}
				kernel.RotateOnce(near, n, rotation.Entry(n, out))
				Decoder{Scheme: s, Approximate: true}.Decode(got, q.Data, tile.Line(0, len(got)), out, new(tile.Scratch))
				if !bytes.Equal(golden.BytesOf(got), golden.BytesOf(near)) {
					t.Errorf("%s, groups of %d, %d rotated, to %s: other values nearby", o.Dtype.Name, o.GroupSize, n, out)
				}
			}
		}
	}
}
