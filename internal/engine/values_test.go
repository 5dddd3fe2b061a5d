package engine_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/fixture"
	from "github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// stores are ways to store a layer that differ in the areas by which it decodes.
var stores = []struct {
	dtype    string
	settings tensorpress.Settings
}{
	{"int8_tensorwise", tensorpress.Settings{}}, {"int8_tensorwise", tensorpress.Settings{ConvRot: new(true)}}, {"int8_blockwise", tensorpress.Settings{}},
	{"nvfp4", tensorpress.Settings{}}, {"mxfp8", tensorpress.Settings{}}, {"awq_w4a16", tensorpress.Settings{}}, {"convrot_w4a4", tensorpress.Settings{}}, {"asym_w4a8_int8", tensorpress.Settings{}}, {"svdquant_w4a4", tensorpress.Settings{SVDRank: new(4)}},
	{"sdnq:int8", tensorpress.Settings{QuantizedMatmul: new(true)}}, {"sdnq:int16", tensorpress.Settings{QuantizedMatmul: new(true)}}, {"sdnq:int5", tensorpress.Settings{}},
	{"sdnq:uint3", tensorpress.Settings{Hadamard: new(true)}}, {"sdnq:uint4", tensorpress.Settings{SVDRank: new(4)}},
	{"sdnq:uint4", tensorpress.Settings{ScaleDtype: "uint6"}}, {"sdnq:uint2", tensorpress.Settings{Codebook: new(true)}},
}

// TestAnyAreaDecodes: a layer that is quantized again is read in the areas of
// its new format, which are not those in which it was stored.
func TestAnyAreaDecodes(t *testing.T) {
	t.Parallel()
	const rows, columns = 128, 512
	areas := 20
	if testing.Short() {
		areas = 6
	}
	source := fixture.Written(t, []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{rows, columns}}})
	for _, tt := range stores {
		t.Run(fmt.Sprint(tt.dtype, tt.settings), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "layer.safetensors")
			o := tensorpress.Options{Layout: "comfy", Layer: fixture.Also(tt.settings, tensorpress.Settings{Dtype: tt.dtype}), Preset: "none"}
			if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(path), o); err != nil {
				t.Fatal(err)
			}
			c, err := checkpoint.Open(from.Path(path))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			m, err := bundle.ReadModel(c, nil)
			if err != nil || m.Failed() != nil {
				t.Fatal(err, m.Failed())
			}
			d := engine.NewDecoding(c, m.Layers[0], safetensors.F32, fixture.Resources{})
			whole := valuesIn(t, d, 1, columns, tile.Area{Rows: rows, Cols: columns})
			for i, v := range fixture.ValuesOf(t, fixture.Plain(t, path), "a.weight") {
				if math.Float32bits(v) != math.Float32bits(whole[i]) {
					t.Fatalf("value %d is %v, want %v", i, whole[i], v)
				}
			}
			r := rand.New(rand.NewPCG(7, 7))
			for _, wide := range []int{columns, rows * columns, 1} {
				for range areas {
					compareArea(t, d, whole, wide, someArea(r, rows*columns/wide, wide))
				}
			}
		})
	}
}

func someArea(r *rand.Rand, rows, columns int) tile.Area {
	row, col := r.IntN(rows), r.IntN(columns)
	return tile.Area{Row: row, Col: col, Rows: 1 + r.IntN(min(rows-row, 300)), Cols: 1 + r.IntN(columns-col)}
}

func compareArea(t *testing.T, d *engine.Decoding, whole []float32, columns int, a tile.Area) {
	t.Helper()
	for _, memory := range []int64{1, 0} { // without windows, and with
		for i, v := range valuesIn(t, d, memory, columns, a) {
			if want := whole[a.Index(i, columns)]; math.Float32bits(v) != math.Float32bits(want) {
				t.Fatalf("%+v of %d columns: value %d is %v, want %v", a, columns, i, v, want)
			}
		}
	}
}

func valuesIn(t *testing.T, d *engine.Decoding, memory int64, columns int, a tile.Area) (values []float32) {
	t.Helper()
	err := stream.Run(t.Context(), 1, func(yield func(stream.Task) bool) {
		yield(stream.Task{Do: func(w *stream.Worker) error {
			got, err := engine.NewStoredValues(d.Source, d.Layer, 3000, fixture.Resources{Memory: memory}).Read(w, 0, columns, a)
			values = append(values, got...)
			return err
		}})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return values
}
