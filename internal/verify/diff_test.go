package verify_test

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestDiffOfNumbers: values are the same or not as numbers are, whatever dtypes they have,
// even where float32 does not hold them.
func TestDiffOfNumbers(t *testing.T) {
	f64 := func(x ...float64) (b []byte) {
		for _, x := range x {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
		}
		return b
	}
	f32 := func(x ...float32) (b []byte) {
		for _, x := range x {
			b = append(b, fixture.Float32Bytes(x)...)
		}
		return b
	}
	i64 := func(x ...int64) (b []byte) {
		for _, x := range x {
			b = binary.LittleEndian.AppendUint64(b, uint64(x))
		}
		return b
	}
	nan, inf, zero := float32(math.NaN()), float32(math.Inf(1)), float32(0)
	otherNaN := math.Float32frombits(math.Float32bits(nan) ^ 1)
	for name, c := range map[string]struct {
		a, b         safetensors.Dtype
		dataA, dataB []byte
		want         report.Finding
		most         float64 // max_abs, 0 for none, -1 for one that is not finite
	}{
		"the same":                        {safetensors.F32, safetensors.F32, f32(1, 2), f32(1, 2), report.SameBytes, 0},
		"signs of zero":                   {safetensors.F32, safetensors.F32, f32(1, zero), f32(1, -zero*-1), report.SameBytes, 0},
		"minus zero":                      {safetensors.F32, safetensors.F32, f32(1, 0), f32(1, float32(math.Copysign(0, -1))), report.SameValues, 0},
		"another NaN":                     {safetensors.F32, safetensors.F32, f32(nan, 2), f32(otherNaN, 2), report.SameValues, 0},
		"infinities":                      {safetensors.F32, safetensors.F64, f32(inf, 2), f64(math.Inf(1), 2), report.SameValues, 0},
		"a NaN of two":                    {safetensors.F32, safetensors.F32, f32(nan, 2), f32(1, 2), report.OtherValue, -1},
		"an infinity for a number":        {safetensors.F32, safetensors.F32, f32(1, 2), f32(1, inf), report.OtherValue, -1},
		"the least difference":            {safetensors.F32, safetensors.F32, f32(1, 0), f32(1, math.SmallestNonzeroFloat32), report.OtherValue, math.SmallestNonzeroFloat32},
		"doubles that float32 holds":      {safetensors.F64, safetensors.F32, f64(1.5, 2), f32(1.5, 2), report.SameValues, 0},
		"doubles that float32 rounds":     {safetensors.F64, safetensors.F32, f64(1+0x1p-40, 2), f32(1, 2), report.OtherValue, 0x1p-40},
		"doubles":                         {safetensors.F64, safetensors.F64, f64(0, 2), f64(math.Copysign(0, -1), 2), report.SameValues, 0},
		"integers that doubles round":     {safetensors.I64, safetensors.I64, i64(1<<60, 1), i64(1<<60+1, 1), report.OtherValue, 0},
		"integers of two dtypes":          {safetensors.I64, safetensors.U8, i64(200, 3), []byte{200, 3}, report.SameValues, 0},
		"other integers":                  {safetensors.I64, safetensors.I64, i64(200, 3), i64(195, 3), report.OtherValue, 5},
		"what has no numbers":             {safetensors.F8_E8M0, safetensors.F8_E8M0, []byte{1, 2}, []byte{1, 3}, report.OtherValue, 0},
		"what has no numbers, and floats": {safetensors.F8_E8M0, safetensors.F32, []byte{1, 2}, f32(1, 2), report.OtherDtype, 0},
	} {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.safetensors")
		fixture.Write(t, a, []safetensors.Tensor{{Name: "x", Dtype: c.a, Shape: []int{2}}}, map[string][]byte{"x": c.dataA})
		fixture.Write(t, b, []safetensors.Tensor{{Name: "x", Dtype: c.b, Shape: []int{2}}}, map[string][]byte{"x": c.dataB})
		d, err := tensorpress.Diff(t.Context(), files.Dir(a), files.Dir(b), tensorpress.DiffOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p := d.Tensors[0]
		same := c.want == report.SameBytes || c.want == report.SameValues
		if p.Finding != c.want || d.Same != same {
			t.Errorf("%s: %+v, same %v", name, p, d.Same)
		}
		switch f := p.Figures; {
		case c.most == 0 && f != nil && (f.MaxAbs == nil || *f.MaxAbs != 0),
			c.most > 0 && (f == nil || f.MaxAbs == nil || *f.MaxAbs != c.most),
			c.most < 0 && (f == nil || f.MaxAbs != nil && f.RelMSE != nil):
			t.Errorf("%s: figures %+v", name, f)
		}
	}
}

// TestDiffOfLayers: the figures are those of verify, whichever side is quantized and in
// whatever format and tiles; two quantized ones are compared by what they restore to.
func TestDiffOfLayers(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", nil,
		fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 96}},
		fixture.Weights{Name: "a.bias", Dtype: safetensors.F32, Shape: []int{64}},
		fixture.Weights{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{32, 9600}})
	paths := map[string]string{}
	for name, o := range map[string]tensorpress.Options{
		"rows":    {},
		"rotated": {Layout: "comfy", Layer: tensorpress.Settings{Dtype: "int8_tensorwise", ConvRot: new(true)}},
		"uint4":   {Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint4", SVDRank: new(8)}},
		"tiles":   {Layer: tensorpress.Settings{Dtype: "mxfp8"}},
	} {
		o.Preset = "none"
		paths[name] = fixture.Quantized(t, source, o)
		v, err := tensorpress.Verify(t.Context(), files.Dir(paths[name]), tensorpress.VerifyOptions{Source: files.Dir(source)})
		if err != nil {
			t.Fatal(err)
		}
		for _, threads := range []int{1, 3} {
			d, err := tensorpress.Diff(t.Context(), files.Dir(source), files.Dir(paths[name]), tensorpress.DiffOptions{Threads: threads})
			if err != nil || d.Same {
				t.Fatalf("%s: %v, %+v", name, err, d)
			}
			found := map[string]*report.Figures{}
			for _, p := range d.Tensors {
				found[p.Name] = p.Figures
			}
			for _, l := range v.Layers {
				f := found[l.Name+".weight"]
				if f == nil || math.Abs(*f.RelMSE/(*l.RelMSE)-1) > 1e-5 || math.Abs(*f.MaxAbs/(*l.MaxAbs)-1) > 1e-4 {
					t.Errorf("%s: %s: %+v, verify has %+v", name, l.Name, f, l.Figures)
				}
			}
		}
	}
	for _, a := range paths {
		for _, b := range paths {
			d, err := tensorpress.Diff(t.Context(), files.Dir(a), files.Dir(b), tensorpress.DiffOptions{})
			if err != nil || d.Same != (a == b) {
				t.Errorf("%s and %s: %v, %+v", a, b, err, d)
			}
			plain := filepath.Join(t.TempDir(), "plain.safetensors")
			if _, err := tensorpress.Dequantize(t.Context(), files.Dir(a), files.Dir(plain), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
				t.Fatal(err)
			}
			way, err := tensorpress.Diff(t.Context(), files.Dir(plain), files.Dir(b), tensorpress.DiffOptions{})
			if err != nil || way.Same != d.Same || d.Total.RelMSE != nil && *way.Total.RelMSE != *d.Total.RelMSE {
				t.Errorf("%s, restored, and %s: %v, %+v, not %+v", a, b, err, way.Total, d.Total)
			}
		}
	}
}
