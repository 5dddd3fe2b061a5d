package sdnq

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
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
	q, err := Quantize(tiletest.Sample(rand.New(rand.NewPCG(5, 8)), s.Values), shape, o)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Dequantize(q)
	if err != nil {
		t.Fatal(err)
	}
	d := s.Decoder()
	once := d.SharedTensor()
	if once == 0 || s.Tensors()[once].Role != tile.SVDDown {
		t.Fatalf("tensor %d is to be taken", once)
	}
	if d = d.WithShared(q.Data[once]); d.SharedTensor() != 0 {
		t.Error("it is to be taken again")
	}
	got, step := make([]float32, len(want)), 5*s.align()
	for start := 0; start < len(got); start += step {
		end := min(start+step, len(got))
		src := make([][]byte, len(q.Data))
		for i := range src {
			tiletest.EachRun(d.Needed(i, tile.Line(start, end)), func(from, to int64) { src[i] = append(src[i], q.Data[i][from:to]...) })
		}
		if len(src[once]) > 0 {
			t.Error("a step reads it")
		}
		d.Decode(got[start:end], src, tile.Line(start, end), safetensors.F32, new(tile.Scratch))
	}
	if !bytes.Equal(kernel.AsBytes(got), kernel.AsBytes(want)) {
		t.Error("values differ")
	}
}
