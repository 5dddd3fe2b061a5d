package quant_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// bell are values as weights have them.
func bell(n int) []float32 {
	r, w := rand.New(rand.NewPCG(5, 6)), make([]float32, n)
	for i := range w {
		w[i] = float32(0.02 * r.NormFloat64())
	}
	return w
}

// TestEveryFormatComesBack: a name that the list of formats has is one that a program
// can quantize with.
func TestEveryFormatComesBack(t *testing.T) {
	shape := []int{128, 256}
	w := bell(128 * 256)
	for _, f := range tensorpress.Formats() {
		q, err := quant.Quantize(w, shape, storage.Settings{Dtype: f.Name})
		if row := codec.Lookup(f.Name); row != nil && row.ReadOnly != "" {
			if err == nil {
				t.Errorf("%s is written", f.Name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		restored, err := quant.Dequantize(q)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		var loss, all float64
		for i, v := range w {
			d := float64(restored[i]) - float64(v)
			loss, all = loss+d*d, all+float64(v)*float64(v)
		}
		if !(loss/all < 0.4) && f.Bits > 3 {
			t.Errorf("%s: the error is %g of the weight", f.Name, loss/all)
		}
	}
}

// TestBytesAreThoseOfFiles: who checks a file by the library must not find a
// difference.
func TestBytesAreThoseOfFiles(t *testing.T) {
	w := bell(64 * 256)
	for _, s := range []storage.Settings{
		{}, {Dtype: "uint4", GroupSize: new(32)}, {Dtype: "nvfp4"}, {Dtype: "mxfp8"}, {Dtype: "int8_tensorwise", Scale: "tensor"},
		{Dtype: "float8_e4m3fn", Scale: "row"}, {Dtype: "int6", Hadamard: new(true)}, {Dtype: "uint4", SVDRank: new(8)}, {Dtype: "asym_w4a8_int8"},
	} {
		path, dest := filepath.Join(t.TempDir(), "w.safetensors"), filepath.Join(t.TempDir(), "q.safetensors")
		fixture.Write(t, path, []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 256}}}, map[string][]byte{"a.weight": kernel.AsBytes(w)})
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.Options{Layer: s, Layout: "comfy", Preset: "none"}); err != nil {
			t.Fatal(err)
		}
		q, err := quant.Quantize(w, []int{64, 256}, s)
		if err != nil {
			t.Fatal(err)
		}
		file := fixture.FileBytes(t, dest)
		for _, tensor := range q.Tensors {
			if len(tensor.Data) > 0 && !bytes.Contains(file, tensor.Data) {
				t.Errorf("%s: the file holds another %s", q.Metadata, tensor.Role)
			}
		}
	}
}

// TestRefused: an error says what is wrong.
func TestRefused(t *testing.T) {
	nan := bell(64)
	nan[9] = float32(math.NaN())
	for name, c := range map[string]struct {
		w     []float32
		shape []int
		s     storage.Settings
		want  string
	}{
		"too few values": {bell(60), []int{8, 8}, storage.Settings{}, "60 values for shape [8 8], want 64"},
		"a vector":       {bell(64), []int{64}, storage.Settings{}, "shape [64], want two dimensions"},
		"no shape":       {bell(1), nil, storage.Settings{Dtype: "float8_e4m3fn_rowwise"}, "want two dimensions"},
		"unknown dtype":  {bell(64), []int{8, 8}, storage.Settings{Dtype: "int99"}, "int99"},
		"no blocks":      {bell(64), []int{8, 8}, storage.Settings{Dtype: "float8_e4m3fn", Scale: "block"}, "shape [8 8]"},
		"not finite":     {nan, []int{8, 8}, storage.Settings{}, "value 9 is NaN"},
	} {
		_, err := quant.Quantize(c.w, c.shape, c.s)
		var n *quant.NonfiniteError
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &n) != (name == "not finite") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestDamagedIsRefused: what was cut off or swapped is no weight.
func TestDamagedIsRefused(t *testing.T) {
	good, err := quant.Quantize(bell(64*64), []int{64, 64}, storage.Settings{Dtype: "uint4", GroupSize: new(32)})
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(q *quant.Quantized){
		"no metadata":     func(q *quant.Quantized) { q.Metadata = nil },
		"no format":       func(q *quant.Quantized) { q.Metadata = []byte(`{}`) },
		"unknown format":  func(q *quant.Quantized) { q.Metadata = []byte(`{"format": "x"}`) },
		"no scale":        func(q *quant.Quantized) { q.Tensors = q.Tensors[:1] },
		"codes cut off":   func(q *quant.Quantized) { q.Tensors[0].Data = q.Tensors[0].Data[:7] },
		"scales swapped":  func(q *quant.Quantized) { q.Tensors[1].Shape = []int{1} },
		"scales cut off":  func(q *quant.Quantized) { q.Tensors[1].Data = nil },
		"another's codes": func(q *quant.Quantized) { q.Tensors[0].Dtype = safetensors.F32 },
	} {
		q := &quant.Quantized{Metadata: good.Metadata, Tensors: append([]quant.Tensor(nil), good.Tensors...)}
		damage(q)
		if _, err := quant.Dequantize(q); err == nil {
			t.Errorf("%s: it is restored", name)
		}
	}
}
