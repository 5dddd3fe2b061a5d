package quant

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestTakenFactor: a layer with a low-rank part that is restored tile by tile, its
// factor down known before, has the values that it has as a whole.
func TestTakenFactor(t *testing.T) {
	shapes := map[Kind][]int{Linear: {96, 130}, Conv: {48, 32, 3, 3}}
	for kind, shape := range shapes {
		for _, matmul := range []bool{false, true} {
			for _, model := range []safetensors.Dtype{safetensors.BF16, safetensors.F16, safetensors.F32} {
				t.Run(fmt.Sprint(shape, matmul, model), func(t *testing.T) {
					o := Options{Dtype: dtype.Lookup("int8"), Kind: kind, Rank: 7, Matmul: matmul, ScaleDtype: safetensors.F32, ModelDtype: model}
					testTakenFactor(t, shape, o)
				})
			}
		}
	}
}

func testTakenFactor(t *testing.T, shape []int, o Options) {
	s, err := NewScheme(shape, o)
	if err != nil {
		t.Fatal(err)
	}
	q, err := Quantize(sample(rand.New(rand.NewPCG(5, 8)), s.Values), shape, o)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Dequantize(q)
	if err != nil {
		t.Fatal(err)
	}
	d := s.Decoder()
	once := d.Once()
	if once == 0 || s.Tensors()[once].Role != SVDDown {
		t.Fatalf("tensor %d is to be taken", once)
	}
	if d = d.Take(q.Data[once]); d.Once() != 0 {
		t.Error("it is to be taken again")
	}
	got, tile := make([]float32, len(want)), 5*s.align()
	for start := 0; start < len(got); start += tile {
		end := min(start+tile, len(got))
		src := make([][]byte, len(q.Data))
		for i := range src {
			eachRun(d.Needed(i, Line(start, end)), func(from, to int64) { src[i] = append(src[i], q.Data[i][from:to]...) })
		}
		if len(src[once]) > 0 {
			t.Error("a tile reads it")
		}
		d.Decode(got[start:end], src, Line(start, end), safetensors.F32, new(Scratch))
	}
	if !bytes.Equal(kernel.AsBytes(got), kernel.AsBytes(want)) {
		t.Error("values differ")
	}
}
