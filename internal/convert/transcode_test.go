package convert_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// moves are SDNQ layers and the formats that take them as they are.
var moves = []struct {
	dtype    string
	settings tensorpress.Settings
	group    int
	format   string
	rounds   bool // scales are rounded to BF16
	rotated  bool // the rotation is undone in another order
}{
	{"int8", tensorpress.Settings{}, -1, "int8_tensorwise", false, false},
	{"int8", tensorpress.Settings{}, -2, "int8_tensorwise", false, false},
	{"int8", tensorpress.Settings{QuantizedMatmul: new(true)}, -1, "int8_tensorwise", false, false},
	{"int8", tensorpress.Settings{Hadamard: new(true), HadamardGroupSize: new(4)}, -1, "int8_tensorwise", false, true},
	{"int8", tensorpress.Settings{Hadamard: new(true), HadamardGroupSize: new(16)}, -1, "int8_tensorwise", false, true},
	{"int8", tensorpress.Settings{Hadamard: new(true), HadamardGroupSize: new(64)}, -1, "int8_tensorwise", false, true},
	{"int8", tensorpress.Settings{Hadamard: new(true), HadamardGroupSize: new(256), QuantizedMatmul: new(true)}, -1, "int8_tensorwise", false, true},
	{"int8", tensorpress.Settings{Hadamard: new(true), HadamardGroupSize: new(1024)}, -1, "int8_tensorwise", false, true},
	{"uint4", tensorpress.Settings{}, 0, "awq_w4a16", true, false},
	{"uint4", tensorpress.Settings{}, 32, "awq_w4a16", true, false},
	{"uint4", tensorpress.Settings{}, 128, "awq_w4a16", true, false},
	{"uint4", tensorpress.Settings{}, -1, "awq_w4a16", true, false},
	{"int8", tensorpress.Settings{ScaleDtype: "uint8"}, -1, "int8_tensorwise", false, false},
	{"uint4", tensorpress.Settings{ScaleDtype: "uint8", CodebookScale: new(true)}, 64, "awq_w4a16", true, false},
	{"float8_e4m3fn", tensorpress.Settings{}, -2, "float8_e4m3fn", false, false},
	{"float8_e5m2", tensorpress.Settings{}, -2, "float8_e5m2", false, false},
	{"float8_e4m3fn", tensorpress.Settings{}, -1, "float8_e4m3fn_rowwise", false, false},
}

// TestMovesAndBack: what is moved must decode to the same values, and come back
// as the same codes, whatever the threads and the memory.
func TestMovesAndBack(t *testing.T) {
	t.Parallel()
	source := fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{70, 1024}},
		{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{33, 2048}},
		{Name: "b.bias", Dtype: safetensors.BF16, Shape: []int{33}},
		{Name: "norm.weight", Dtype: safetensors.BF16, Shape: []int{1024}},
	})
	for i, tt := range moves {
		t.Run(fmt.Sprint(tt.dtype, tt.group, tt.settings), func(t *testing.T) {
			from, moved := filepath.Join(t.TempDir(), "sdnq.safetensors"), filepath.Join(t.TempDir(), "comfy.safetensors")
			o := tensorpress.Options{Layout: "sdnq", Layer: fixture.Also(tt.settings, tensorpress.Settings{Dtype: tt.dtype, GroupSize: &tt.group}), Preset: "none"}
			if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(from), o); err != nil {
				t.Fatal(err)
			}
			some := fixture.Resources{Threads: 1 + i%4, Memory: int64(1+i%2) << 26}
			r, err := tensorpress.Transcode(t.Context(), files.Dir(from), files.Dir(moved), tensorpress.TranscodeOptions{Layout: "comfy", Scale: "row", Threads: some.Threads, Memory: some.Memory, Progress: some.Progress})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range r.Layers {
				if l.Action == "move" && (l.Dtype != tt.format || (l.Figures != nil) != tt.rounds) {
					t.Errorf("%s: %s, error %v", l.Name, l.Dtype, l.Figures)
				}
				if l.Figures != nil && *l.RelMSE > 2e-5 {
					t.Errorf("%s loses %v", l.Name, *l.RelMSE)
				}
			}
			if v, err := tensorpress.Verify(t.Context(), files.Dir(moved), tensorpress.VerifyOptions{Source: files.Dir(source), For: forOf(tt.format), MaxRelMSE: fixture.Ptr(0.02)}); err != nil || !v.OK {
				t.Fatal(v, err)
			}
			if list := fixture.Differences(t, fixture.Plain(t, moved), fixture.Plain(t, from)); (len(list) > 0) != (tt.rounds || tt.rotated) {
				t.Errorf("values differ: %v", list)
			}
			back := filepath.Join(t.TempDir(), "back.safetensors")
			if _, err := tensorpress.Transcode(t.Context(), files.Dir(moved), files.Dir(back), tensorpress.TranscodeOptions{Layout: "sdnq"}); err != nil {
				t.Fatal(err)
			}
			for _, name := range fixture.Differences(t, inComfy(t, back), moved) {
				if strings.HasSuffix(name, ".weight") || !tt.rounds {
					t.Errorf("%s comes back as another", name)
				}
			}
			if tt.rounds {
				return
			}
			if list := fixture.Differences(t, fixture.Plain(t, back), fixture.Plain(t, from)); len(list) > 0 {
				t.Errorf("comes back with other values: %v", list)
			}
		})
	}
}

// TestRenamesAndBack: layers of SDNQ's that describe themselves must be what they
// were where a config describes them, and when they come back.
func TestRenamesAndBack(t *testing.T) {
	t.Parallel()
	source := fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{64, 128}}, {Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{48, 64}},
	})
	for _, tt := range fixture.SettingCases {
		label := fmt.Sprint(tt.Dtype, tt.Settings)
		from := fixture.Quantized(t, source, tensorpress.Options{Layer: fixture.Also(tt.Settings, tensorpress.Settings{Dtype: "sdnq:" + strings.TrimPrefix(tt.Dtype, "sdnq:")})})
		named, back := filepath.Join(t.TempDir(), "sdnq.safetensors"), filepath.Join(t.TempDir(), "back.safetensors")
		if _, err := tensorpress.Transcode(t.Context(), files.Dir(from), files.Dir(named), tensorpress.TranscodeOptions{Layout: "sdnq"}); err != nil {
			t.Errorf("%s: %v", label, err)
			continue
		}
		if v, err := tensorpress.Verify(t.Context(), files.Dir(named), tensorpress.VerifyOptions{Source: files.Dir(from), MaxRelMSE: fixture.Ptr(0.0)}); err != nil || !v.OK {
			t.Errorf("%s: %+v, %v", label, v, err)
			continue
		}
		if _, err := tensorpress.Transcode(t.Context(), files.Dir(named), files.Dir(back), tensorpress.TranscodeOptions{Layout: "comfy", Rename: true}); err != nil {
			t.Errorf("%s: %v", label, err)
		} else if list := fixture.Differences(t, back, from); len(list) > 0 {
			t.Errorf("%s: comes back with another %v", label, list)
		}
		if tt.Settings.ZeroPointDtype == "" {
			continue
		}
		if list := fixture.Differences(t, fixture.Quantized(t, source, tensorpress.Options{Like: files.Dir(from)}), from); len(list) > 0 {
			t.Errorf("%s: done like it, it has another %v", label, list)
		}
	}
}

func forOf(format string) string {
	if format == "float8_e4m3fn_rowwise" {
		return ""
	}
	return "comfyui"
}

// inComfy moves a file to the comfy layout, where codes are not transposed.
func inComfy(t *testing.T, path string) string {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "codes.safetensors")
	if _, err := tensorpress.Transcode(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.TranscodeOptions{Layout: "comfy", Scale: "row"}); err != nil {
		t.Fatal(err)
	}
	return dest
}

// TestW4A4ToSDNQ: its codes are two's complement, SDNQ's count from the least:
// what is copied unchanged decodes to noise.
func TestW4A4ToSDNQ(t *testing.T) {
	source := fixture.Written(t, []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{70, 1024}}})
	name := "convrot_w4a4"
	for _, group := range []int{16, 64, 256, 1024} {
		from, moved := filepath.Join(t.TempDir(), "from.safetensors"), filepath.Join(t.TempDir(), "moved.safetensors")
		o := tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{Dtype: name, ConvRotGroupSize: new(group)}, Preset: "none"}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(from), o); err != nil {
			t.Fatal(err)
		}
		if r, err := tensorpress.Transcode(t.Context(), files.Dir(from), files.Dir(moved), tensorpress.TranscodeOptions{Layout: "sdnq"}); err != nil || r.Layers[0].Action != "move" {
			t.Fatal(r, err)
		}
		got, want := fixture.ValuesOf(t, fixture.Plain(t, moved), "a.weight"), fixture.ValuesOf(t, fixture.Plain(t, from), "a.weight")
		for i := range want {
			if d := got[i] - want[i]; d > 1e-6 || d < -1e-6 {
				t.Fatalf("rotated by %d: value %d is %v, was %v", group, i, got[i], want[i])
			}
		}
	}
}
