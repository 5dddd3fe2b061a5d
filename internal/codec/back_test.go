package codec

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// settingValues are values of the settings that only some formats have, and whether the
// layer's metadata has to tell them.
var settingValues = map[string]func(*Settings){
	"block-size":            func(s *Settings) { s.BlockSize = 16 },
	"group-size":            func(s *Settings) { s.GroupSize = 32 },
	"convrot":               func(s *Settings) { s.ConvRot = true },
	"convrot-group-size":    func(s *Settings) { s.ConvRot, s.ConvRotGroupSize = true, 16 },
	"dynamic-convrot":       func(s *Settings) { s.ConvRot, s.DynamicConvRot, s.ConvRotGroupSize = true, true, 16 },
	"bits":                  func(s *Settings) { s.Bits = 6 },
	"full-precision-matmul": func(s *Settings) { s.FullPrecisionMatmul = true },
	"input-scale":           func(s *Settings) { s.InputScale = true },
	"scale-as-input":        func(s *Settings) { s.ScaleAsInput = true },
	"search":                func(s *Settings) { s.Search = true },
	"output-dtype":          func(s *Settings) { s.OutputDtype = "f16" },
	"variant":               func(s *Settings) {},
	"svd-rank":              func(s *Settings) { s.SVDRank = 5 },
	"svd-steps":             func(s *Settings) { s.SVDSteps = 1 },
	"svd-refit":             func(s *Settings) { s.SVDRefit = 2 },
}

// nativeCases are ComfyUI's and convert_to_quant's formats, each with every setting
// that it lists and each scale that it has.
func nativeCases(t testing.TB) []Settings {
	t.Helper()
	var all []Settings
	for _, f := range Formats() {
		if f == sdnqFormat || f.ReadOnly != "" {
			continue
		}
		plain := Settings{Dtype: f.Name, DequantizeFP32: true}
		exact := plain
		exact.ExactReference = true
		all = append(all, plain, exact)
		for scale := range f.Scales {
			scaled := plain
			scaled.Dtype, scaled.Scale = f.Scaled(scale).Name, scale
			all = append(all, scaled)
		}
		for _, flag := range f.Takes {
			set, ok := settingValues[flag]
			if !ok {
				t.Errorf("%s takes --%s, which no test asks for", f.Name, flag)
				continue
			}
			one := plain
			if set(&one); f.Scales["row"] == f.Name && one.ConvRot {
				one.Scale = "row"
			}
			if flag == "variant" {
				one.Variant = f.Variant
			}
			all = append(all, one)
		}
	}
	return all
}

// sdnqCases are every dtype, and every setting of SDNQ's with one of them.
func sdnqCases() []Settings {
	var all []Settings
	for i, d := range dtype.All() {
		if d.Storable() && (i%9 == 0 || !testing.Short()) {
			all = append(all, Settings{Dtype: "sdnq:" + d.Name, DequantizeFP32: true})
		}
	}
	for _, set := range []func(*Settings){
		func(s *Settings) { s.Hadamard = true },
		func(s *Settings) { s.Hadamard, s.HadamardGroupSize = true, 32 },
		func(s *Settings) { s.Codebook = true },
		func(s *Settings) { s.ScaleDtype = "uint8" },
		func(s *Settings) { s.ScaleDtype, s.ZeroPointDtype = "float8_e4m3fn", "none" },
		func(s *Settings) { s.ScaleDtype, s.CodebookScale = "uint4", true },
		func(s *Settings) { s.SVDRank = 4 },
		func(s *Settings) { s.SVDRank, s.SVDSteps, s.Hadamard = 4, 0, true },
		func(s *Settings) { s.StochasticRounding, s.Seed = true, 7 },
		func(s *Settings) { s.ModelDtype, s.DequantizeFP32 = "bf16", false },
		func(s *Settings) { s.GroupSize = -2 },
		func(s *Settings) { s.Dtype, s.GroupSize = "sdnq:int8", -1 },
		func(s *Settings) { s.Dtype, s.QuantizedMatmul = "sdnq:int8", true },
		func(s *Settings) { s.Dtype, s.QuantizedMatmul, s.SVDRank = "sdnq:int8", true, 4 },
		func(s *Settings) {
			s.Dtype, s.QuantizedMatmul, s.QuantizedMatmulDtype = "sdnq:float8_e4m3fn", true, "float16"
		},
	} {
		s := Default()
		s.Dtype = "sdnq:uint4"
		set(&s)
		all = append(all, s)
	}
	return all
}

// mostError is the error that values may have, relative to their squares.
func mostError(s Settings) float64 {
	t := dtype.Lookup(strings.TrimPrefix(s.Dtype, "sdnq:"))
	switch {
	case t == nil || !strings.HasPrefix(s.Dtype, "sdnq:"):
		return 0.03
	case t.Bits < 4: // signs alone, and the like
		return 1
	case t.Exponent > 0 && t.Mantissa < 2: // powers of two, and one value between them
		return 0.4
	}
	return 0.03
}

// read is an object as a reader finds it.
func read(t testing.TB, o pyjson.Object) pyjson.Object {
	t.Helper()
	again, err := pyjson.ParseObject([]byte(pyjson.Dump(o)))
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// TestEveryFormatComesBack: what a layer was quantized to must be near what it was,
// the same in areas of any size, and a reader that has its metadata alone must
// restore the same values.
func TestEveryFormatComesBack(t *testing.T) {
	t.Parallel()
	shape := []int{128, 256}
	values := bell(shape)
	for _, s := range slices.Concat(nativeCases(t), sdnqCases()) {
		label := fmt.Sprintf("%+v", s)
		f, c, metadata := made(t, Source{Name: "a", Shape: shape, Dtype: safetensors.F32}, s)
		stored := encoded(t, c, values, 1<<20)
		if small := encoded(t, c, values, 2048); !equalParts(small, stored) {
			t.Errorf("%s: small areas give other bytes", label)
		}
		back := restored(t, c, stored, 1<<20, safetensors.F32)
		if got := relMSE(back, values); !(got < mostError(s)) {
			t.Errorf("%s: error %g", label, got)
		}
		again, err := f.Open(written(t, c, metadata))
		if err != nil {
			t.Errorf("%s: %v", label, err)
			continue
		}
		if got := restored(t, again, stored[:len(again.Tensors())], 700, safetensors.F32); !slices.Equal(got, back) {
			t.Errorf("%s: a reader restores other values", label)
		}
		if near := Approximate(again); near != nil {
			if got := restored(t, near, stored[:len(again.Tensors())], 1<<20, safetensors.F32); relMSE(got, back) > 1e-6 {
				t.Errorf("%s: the fast decoder is off by %g", label, relMSE(got, back))
			}
		}
	}
}

// TestSharedTensors: a decoder that was given a tensor once restores the same values
// without it, and codes that lie by columns the same by rows.
func TestSharedTensors(t *testing.T) {
	shape := []int{128, 256}
	shared, turned := 0, 0
	for _, s := range sdnqCases() {
		_, c, _ := made(t, Source{Name: "a", Shape: shape, Dtype: safetensors.F32}, s)
		stored := encoded(t, c, bell(shape), 1<<20)
		want := restored(t, c, stored, 1<<20, safetensors.BF16)
		if indices, take := SharedTensors(c); len(indices) > 0 {
			shared++
			once, err := take([][]byte{stored[indices[0]]})
			if err != nil {
				t.Fatal(err)
			}
			if got := restored(t, once, stored, 1<<20, safetensors.BF16); !slices.Equal(got, want) {
				t.Errorf("%+v: other values without tensor %d", s, indices[0])
			}
		}
		if byRows, straighten := ByRows(c); byRows != nil {
			turned++
			straight := slices.Clone(stored)
			straight[0] = make([]byte, len(stored[0]))
			straighten(straight[0], stored[0], 0)
			if got := restored(t, byRows, straight, 1<<20, safetensors.BF16); !slices.Equal(got, want) {
				t.Errorf("%+v: other values by rows", s)
			}
		}
	}
	if shared < 3 || turned < 3 {
		t.Errorf("%d with a tensor of their own, %d by columns", shared, turned)
	}
}

// TestZeroWeights: an all-zero weight restores to zeros, with the reference's scales
// too.
func TestZeroWeights(t *testing.T) {
	shape := []int{128, 256}
	for _, s := range nativeCases(t) {
		_, c, _ := made(t, Source{Name: "a", Shape: shape, Dtype: safetensors.F32}, s)
		for _, v := range restored(t, c, encoded(t, c, make([]float32, tile.Numel(shape)), 2048), 1<<20, safetensors.F32) {
			if v != 0 {
				t.Errorf("%+v: restores %v", s, v)
				break
			}
		}
	}
}

// TestInputScales: a scale of activations stands where a layer was given one, and
// the weight's own where that is asked for.
func TestInputScales(t *testing.T) {
	shape := []int{128, 256}
	_, plain, _ := made(t, Source{Shape: shape, Dtype: safetensors.F32}, Settings{Dtype: "float8_e4m3fn"})
	stored := encoded(t, WithInputScale(plain, 0.5), bell(shape), 2048)
	if got := getFloat(stored[len(stored)-1], 0, safetensors.F32); got != 0.5 {
		t.Errorf("the input scale is %v, want 0.5", got)
	}
	for _, s := range nativeCases(t) {
		if !s.ScaleAsInput || s.Dtype == int8Blockwise.Name { // which has one of 1 in any case
			continue
		}
		_, c, _ := made(t, Source{Shape: shape, Dtype: safetensors.F32}, s)
		tensors, stored := c.Tensors(), encoded(t, c, bell(shape), 2048)
		last := tensors[len(tensors)-1]
		scale := slices.IndexFunc(tensors, func(one tile.Tensor) bool { return one.Role == tile.Scale })
		if last.Role != tile.InputScale || !slices.Equal(last.Shape, tensors[scale].Shape) {
			t.Errorf("%s: %+v for scales %+v", s.Dtype, last, tensors[scale])
		}
		if tensors[scale].Dtype == safetensors.F32 && string(stored[scale]) != string(stored[len(stored)-1]) {
			t.Errorf("%s: another scale", s.Dtype)
		}
	}
}

// TestKinQuantizes: every format has a nearest one on the other side, that holds the
// same weight.
func TestKinQuantizes(t *testing.T) {
	shape := []int{128, 256}
	for _, s := range nativeCases(t) {
		f, c, metadata := made(t, Source{Shape: shape, Dtype: safetensors.BF16}, s)
		near := InSDNQ(f, read(t, metadata), c, sdnq.Linear)
		near.Dtype = "sdnq:" + near.Dtype
		_, inSDNQ, _ := made(t, Source{Name: "a", Shape: shape, Dtype: safetensors.BF16}, near)
		if got := relMSE(restored(t, inSDNQ, encoded(t, inSDNQ, bell(shape), 1<<20), 1<<20, safetensors.F32), bell(shape)); got > 0.03 {
			t.Errorf("%s becomes %+v, with error %g", f.Name, near, got)
		}
		made(t, Source{Shape: shape, Dtype: safetensors.BF16}, InNative(f, inSDNQ))
	}
}

// TestMovesAndBack: a layer that moves to the other side without rounding moves back
// to the same bytes, and decodes to the same values on both.
func TestMovesAndBack(t *testing.T) {
	shape := []int{128, 256}
	src := Source{Name: "a", Shape: shape, Dtype: safetensors.F32}
	for _, s := range []Settings{
		{Dtype: "sdnq:int8", GroupSize: -1}, {Dtype: "sdnq:int8", GroupSize: -2}, {Dtype: "sdnq:uint4", GroupSize: 64}, {Dtype: "sdnq:uint4", GroupSize: -1},
		{Dtype: "sdnq:float8_e4m3fn", GroupSize: -2}, {Dtype: "sdnq:float8_e5m2", GroupSize: -2}, {Dtype: "sdnq:float8_e4m3fn", GroupSize: -1},
		{Dtype: "sdnq:int8", GroupSize: -1, Hadamard: true, HadamardGroupSize: 16},
	} {
		s.DequantizeFP32 = true
		_, from, _ := made(t, src, s)
		stored := encoded(t, from, bell(shape), 1<<20)
		m, err := ToNative(from, Native{Rows: true, Scales: safetensors.F32})
		if err != nil {
			t.Errorf("%+v: %v", s, err)
			continue
		}
		moved := movedIn(m, stored, 1<<20, 1<<20)
		want := restored(t, from, stored, 1<<20, safetensors.F32)
		if got := restored(t, m.To, moved, 1<<20, safetensors.F32); relMSE(got, want) > 1e-9 {
			t.Errorf("%+v: %s decodes to other values, by %g", s, m.Format.Name, relMSE(got, want))
		}
		back, err := FromNative(src, sdnq.Linear, m.Format, read(t, m.Metadata), m.To)
		if err != nil {
			t.Errorf("%+v: from %s: %v", s, m.Format.Name, err)
			continue
		}
		if got := movedIn(back, moved, 1<<20, 1<<20); !m.Rounds && !equalParts(got, stored) {
			t.Errorf("%+v: from %s it comes back as other bytes", s, m.Format.Name)
		}
		if again, err := FromNative(src, sdnq.Linear, sdnqFormat, read(t, back.Metadata), back.To); err != nil || !equalParts(movedIn(again, stored, 1<<20, 1<<20), stored) {
			t.Errorf("%+v: renamed, it differs: %v", s, err)
		}
	}
	_, int4, metadata := made(t, src, Settings{Dtype: "convrot_w4a4", ConvRotGroupSize: 16})
	stored := encoded(t, int4, bell(shape), 1<<20)
	m, err := FromNative(src, sdnq.Linear, convrotW4A4, read(t, metadata), int4)
	if err != nil {
		t.Fatal(err)
	}
	got := restored(t, m.To, movedIn(m, stored, 1<<20, 1<<20), 1<<20, safetensors.F32)
	if want := restored(t, int4, stored, 1<<20, safetensors.F32); relMSE(got, want) > 1e-9 {
		t.Errorf("convrot_w4a4 moves to other values, by %g", relMSE(got, want))
	}
	_, four, metadata := made(t, src, Settings{Dtype: "nvfp4"})
	if _, err := FromNative(src, sdnq.Linear, nvfp4, read(t, metadata), four); err == nil || !strings.Contains(err.Error(), "no SDNQ dtype") {
		t.Errorf("nvfp4: %v", err)
	}
}

// TestSettingsThroughAConfig: what a config says of a layer is read as it was meant.
func TestSettingsThroughAConfig(t *testing.T) {
	for _, s := range sdnqCases() {
		s.Dtype = strings.TrimPrefix(s.Dtype, "sdnq:")
		s.Seed, s.ModelDtype = 0, "" // no config has them
		if got, err := Default().FromConfig(read(t, s.ConfigKeys())); err != nil || got != s {
			t.Errorf("%+v comes back as %+v, %v", s, got, err)
		}
	}
	for text, want := range map[string]string{
		`{"group_size": 1.5}`:               "whole number",
		`{"use_hadamard": 1}`:               "use_hadamard",
		`{"weights_dtype": 4}`:              "",
		`{"dynamic_loss_threshold": "low"}`: "low",
		`{"dynamic_loss_threshold": 0.5}`:   "",
	} {
		o, err := pyjson.ParseObject([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Default().FromConfig(o); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestScalesOfHalfWidth: a program that saves all of a file in one dtype makes layers
// that every loader reads.
func TestScalesOfHalfWidth(t *testing.T) {
	shape := []int{128, 256}
	for _, name := range []string{"int8_tensorwise", "float8_e4m3fn", "int8_blockwise"} {
		for _, d := range []safetensors.Dtype{safetensors.BF16, safetensors.F16} {
			f, c, metadata := made(t, Source{Shape: shape, Dtype: safetensors.F32}, Settings{Dtype: name})
			stored := encoded(t, c, bell(shape), 1<<20)
			want := restored(t, c, stored, 1<<20, safetensors.F32)
			scales := make([]float32, len(stored[1])/4)
			Widen(scales, stored[1], safetensors.F32)
			stored[1] = make([]byte, 2*len(scales))
			floats.Narrow(stored[1], scales, d)
			l := written(t, c, metadata)
			scale := l.Tensors[tile.Scale]
			scale.Dtype = d
			l.Tensors[tile.Scale] = scale
			narrow, err := f.OpenAs(l)
			if err != nil || !IsForeign(narrow) {
				t.Fatalf("%s, scales in %s: %v", name, d, err)
			}
			if got := restored(t, narrow, stored[:len(narrow.Tensors())], 700, safetensors.F32); relMSE(got, want) > 1e-4 {
				t.Errorf("%s, scales in %s: off by %g", name, d, relMSE(got, want))
			}
			if narrow.NewEncoder(safetensors.F32, 1) != nil || narrow.Written(0, tile.Area{}) != nil {
				t.Errorf("%s, scales in %s: can be written", name, d)
			}
		}
	}
	if _, err := int8Tensorwise.OpenAs(&Stored{Tensors: map[tile.Role]tile.Tensor{tile.Scale: {Dtype: safetensors.BF16}}}); err == nil {
		t.Error("a layer without codes opens")
	}
}

// TestHybrid: the scale for the tensor restores nothing, and the format is not
// written.
func TestHybrid(t *testing.T) {
	shape := []int{128, 256}
	_, c, _ := made(t, Source{Shape: shape, Dtype: safetensors.F32}, Settings{Dtype: "mxfp8"})
	stored := encoded(t, c, bell(shape), 1<<20)
	l := written(t, c, pyjson.Object{{Key: "format", Value: hybridMXFP8.Name}})
	l.Tensors[tile.Scalar] = tile.Tensor{Role: tile.Scalar, Dtype: safetensors.F32, Shape: []int{}}
	hybrid, err := hybridMXFP8.Open(l)
	if err != nil {
		t.Fatal(err)
	}
	want := restored(t, c, stored, 1<<20, safetensors.F32)
	if got := restored(t, hybrid, append(stored, make([]byte, 4)), 1<<20, safetensors.F32); !slices.Equal(got, want) {
		t.Error("it restores other values")
	}
	if _, _, err := hybridMXFP8.Make(Source{Shape: shape, Dtype: safetensors.F32}, Settings{}); err == nil || !strings.Contains(err.Error(), "not written") {
		t.Errorf("it is written: %v", err)
	}
}

// TestForeign: scales of other programs stand for the blocks that their shape says.
func TestForeign(t *testing.T) {
	for _, tt := range []struct {
		codes         safetensors.Dtype
		weight, scale []int
		b             Blocks
		want          string // format, or what the error holds
	}{
		{safetensors.F8_E4M3, []int{64, 256}, []int{}, Blocks{}, "float8_e4m3fn"},
		{safetensors.F8_E5M2, []int{64, 256}, []int{1}, Blocks{}, "float8_e5m2"},
		{safetensors.F8_E4M3, []int{64, 256}, []int{64, 1}, Blocks{}, "float8_e4m3fn_rowwise"},
		{safetensors.F8_E4M3, []int{64, 256}, []int{64}, Blocks{}, "float8_e4m3fn_rowwise"},
		{safetensors.I8, []int{64, 256}, []int{64, 1}, Blocks{}, "int8_tensorwise"},
		{safetensors.F8_E4M3, []int{64, 256}, []int{1, 2}, Blocks{}, "float8_e4m3fn_blockwise"},
		{safetensors.F8_E4M3, []int{64, 256}, []int{2, 8}, Blocks{Divide: true}, "float8_e4m3fn_blockwise"},
		{safetensors.F8_E4M3, []int{64, 256}, []int{2, 4}, Blocks{Rows: 32, Cols: 64, Only: true}, "float8_e4m3fn_blockwise"},
		{safetensors.F8_E4M3, []int{64, 256}, []int{3, 4}, Blocks{Rows: 32, Cols: 64, Only: true}, "in blocks of 32×64"},
		{safetensors.F8_E4M3, []int{64, 256}, []int{64, 4, 1}, Blocks{}, "float8_e4m3fn_block3d"},
		{safetensors.F8_E4M3, []int{64, 256}, []int{16}, Blocks{}, "float8_e4m3fn_blockwise"},
		{safetensors.I8, []int{64, 256}, []int{64, 4, 1}, Blocks{}, "programs differ"},
		{safetensors.F8_E4M3, []int{64, 256}, []int{5}, Blocks{}, "does not fit"},
		{safetensors.F8_E4M3, []int{2, 64, 256}, []int{2, 1, 2}, Blocks{Rows: 64, Cols: 128}, "float8_e4m3fn_blockwise"},
		{safetensors.F8_E4M3, []int{2, 64, 256}, []int{2, 64, 1}, Blocks{}, "float8_e4m3fn_rowwise"},
		{safetensors.F8_E4M3, []int{2, 64, 256}, []int{2}, Blocks{}, "float8_e4m3fn_blockwise"},
		{safetensors.F8_E4M3, []int{2, 64, 256}, []int{7}, Blocks{}, "does not fit"},
		{safetensors.F8_E4M3, []int{}, []int{2}, Blocks{}, "does not fit"},
	} {
		l := &Stored{Tensors: map[tile.Role]tile.Tensor{
			tile.Weight: {Role: tile.Weight, Dtype: tt.codes, Shape: tt.weight}, tile.Scale: {Role: tile.Scale, Dtype: safetensors.F32, Shape: tt.scale},
		}}
		c, metadata, err := OpenForeign(l, tt.b)
		label := fmt.Sprint(tt.codes, tt.weight, tt.scale, tt.b)
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %s", label, err, tt.want)
			}
			continue
		}
		if got, _ := metadata.Get("format"); got != tt.want || !IsForeign(c) || c.NewEncoder(safetensors.F32, 1) != nil || c.Written(0, tile.Area{}) != nil {
			t.Errorf("%s: %v, want %s", label, got, tt.want)
		}
		codes, scales := make([]byte, tile.Numel(tt.weight)), make([]float32, tile.Numel(tt.scale))
		one := map[safetensors.Dtype]byte{safetensors.F8_E4M3: 0x38, safetensors.F8_E5M2: 0x3C, safetensors.I8: 1}[tt.codes]
		for i := range codes {
			codes[i] = one
		}
		for i := range scales {
			scales[i] = float32(i + 1)
		}
		raw := make([]byte, 4*len(scales))
		floats.Narrow(raw, scales, safetensors.F32)
		counts := map[float32]int{}
		for _, v := range restored(t, c, [][]byte{codes, raw}, 700, safetensors.F32) {
			counts[v]++
		}
		for _, s := range scales {
			if counts[s] != len(codes)/len(scales) {
				t.Errorf("%s: scale %v stands for %d values, want %d", label, s, counts[s], len(codes)/len(scales))
			}
		}
	}
}

// TestCast: a weight that is only stored in another dtype is rounded to it, and all
// 8-bit floats are read as the numbers that they are.
func TestCast(t *testing.T) {
	shape := []int{3, 5, 7}
	values := bell(shape)
	for d, most := range map[safetensors.Dtype]float64{safetensors.F32: 0, safetensors.BF16: 1e-5, safetensors.F16: 1e-6} {
		c := Cast(shape, d)
		stored := encoded(t, c, values, 10)
		if got := relMSE(restored(t, c, stored, 4, safetensors.F32), values); got > most {
			t.Errorf("%s: off by %g", d, got)
		}
		if !Floats(d) || !Numbers(d) {
			t.Errorf("%s is no float", d)
		}
	}
	if Floats(safetensors.F8_E4M3) || !Numbers(safetensors.F8_E4M3) || Numbers(safetensors.I8) {
		t.Error("8-bit floats are numbers, and integers are not")
	}
	got := make([]float32, 3)
	Widen(got, []byte{0x38, 0xB8, 0x01}, safetensors.F8_E4M3)
	if want := []float32{1, -1, float32(math.Ldexp(1, -9))}; !slices.Equal(got, want) {
		t.Errorf("widened to %v, want %v", got, want)
	}
}

// TestSettingsThatFitNowhere: settings that a format has no use for are left out
// where nobody asked for them, and refused where somebody did.
func TestSettingsThatFitNowhere(t *testing.T) {
	all := Default()
	for _, set := range settingValues {
		set(&all)
	}
	all.Scale, all.SVDRank = "none has it", 4
	for _, f := range Formats() {
		s := f.Without(all, func(*Field) bool { return false })
		s.Dtype = f.Name
		if f == sdnqFormat {
			s.Dtype = "sdnq:uint4"
		}
		if err := f.Check(s); err != nil && f.ReadOnly == "" {
			t.Errorf("%s: %v is left", f.Name, err)
		}
		if err := f.Check(all); err == nil {
			t.Errorf("%s takes everything", f.Name)
		}
	}
	if _, _, err := mxfp8.Make(Source{Shape: []int{64, 96}, Dtype: safetensors.BF16}, Settings{Dtype: "mxfp8", WholeBlocks: 64}); err == nil {
		t.Error("whole blocks: a side of 96 is no multiple of 64")
	}
}

// TestLabels: convert_to_quant's own names of layers, in tensors and in a header.
func TestLabels(t *testing.T) {
	for _, tt := range []struct {
		l                Label
		metadata, header string
	}{
		{Label{"float8_e4m3fn", 0}, `{"format": "float8_e4m3fn", "a": 1}`, `{"format": "float8_e4m3fn", "a": 1}`},
		{Label{"int8_blockwise", 64}, `{"format": "int8_blockwise", "a": 1, "group_size": 64}`, `{"format": "int8_blockwise", "a": 1, "group_size": 64}`},
		{Label{"mxfp8", 32}, `{"format": "mxfp8", "a": 1}`, `{"format": "mxfp8", "a": 1, "group_size": 32}`},
	} {
		metadata, header := tt.l.Relabel(pyjson.Object{{Key: "format", Value: "x"}, {Key: "group_size", Value: 1}, {Key: "a", Value: 1}})
		if got := pyjson.Dump(metadata); got != tt.metadata {
			t.Errorf("%+v: %s, want %s", tt.l, got, tt.metadata)
		}
		if got := pyjson.Dump(header); got != tt.header {
			t.Errorf("%+v: in a header %s, want %s", tt.l, got, tt.header)
		}
	}
	if got := pyjson.Dump(HeaderEntry(pyjson.Object{{Key: "format", Value: "nvfp4"}, {Key: "per_row", Value: true}})); got != `{"format": "nvfp4", "group_size": 16}` {
		t.Errorf("nvfp4 in a header: %s", got)
	}
}
