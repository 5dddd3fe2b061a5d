package ctq

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/safetensors"
)

// model is what the commands below are asked to quantize.
var model = []safetensors.Tensor{
	{Name: "blocks.0.attn.weight", Dtype: safetensors.BF16, Shape: []int{256, 256}},
	{Name: "blocks.0.ff.weight", Dtype: safetensors.BF16, Shape: []int{256, 512}},
	{Name: "blocks.0.odd.weight", Dtype: safetensors.BF16, Shape: []int{96, 80}},
	{Name: "blocks.0.ff.bias", Dtype: safetensors.F32, Shape: []int{256}},
	{Name: "lm_head.weight", Dtype: safetensors.BF16, Shape: []int{128, 128}},
	{Name: "time_embedding.weight", Dtype: safetensors.F32, Shape: []int{128, 128}},
}

// saved writes tensors, whose bytes are those of data or zeros, and opens the file.
func saved(t *testing.T, tensors []safetensors.Tensor, data map[string][]byte, metadata map[string]string) *checkpoint.Checkpoint {
	t.Helper()
	h, err := safetensors.NewHeader(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, h.FileSize()-h.DataStart)
	for _, one := range h.Tensors {
		copy(body[one.Offset:one.Offset+one.Size], data[one.Name])
	}
	path := filepath.Join(t.TempDir(), "in.safetensors")
	if err := os.WriteFile(path, append(h.Encode(), body...), 0o666); err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(source.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// decided is the plan that a command makes for the model: a line for each weight.
func decided(t *testing.T, command, layers string) (lines []string, err error) {
	t.Helper()
	c, err := Parse(append([]string{"-i", "a"}, strings.Fields(command)...))
	if err != nil {
		t.Fatal(err)
	}
	var config *LayerConfig
	if layers != "" {
		if config, err = ParseLayerConfig([]byte(layers), c.Has("fullmatch")); err != nil {
			t.Fatal(err)
		}
	}
	from := saved(t, model, nil, nil)
	var names []string
	for _, one := range from.Tensors {
		names = append(names, one.Name)
	}
	conversion, err := c.Convert(names, config)
	if err != nil {
		return nil, err
	}
	none, _ := preset.ByName("none")
	p, err := plan.Make(from.Tensors, plan.Options{
		Layout: layout.Comfy, Preset: none, Output: plan.Output{Stem: "out"},
		ListRules: conversion.ListRules, Kept: conversion.Kept, Header: conversion.Header,
	})
	if err != nil {
		return nil, err
	}
	for _, s := range p.Steps {
		line := s.Source.Name + ": "
		switch s.Action {
		case plan.Quantize:
			line += s.Dtype
			for _, one := range []struct {
				name string
				on   bool
			}{
				{fmt.Sprintf("block %d", s.Settings.BlockSize), s.Settings.BlockSize > 0}, {s.Settings.Scale, s.Settings.Scale != ""},
				{fmt.Sprintf("rotated %d", s.Settings.ConvRotGroupSize), s.Settings.ConvRot}, {"dynamic", s.Settings.DynamicConvRot},
				{"full precision", s.Settings.FullPrecisionMatmul}, {"input scale", s.Settings.InputScale}, {"scale as input", s.Settings.ScaleAsInput},
				{s.Settings.Variant, s.Settings.Variant != ""}, {s.Settings.OutputDtype, s.Settings.OutputDtype != ""},
			} {
				if one.on {
					line += ", " + one.name
				}
			}
		default:
			line += "kept: " + s.Reason
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// TestConvert: what an option means for a weight; who moves a script over would get
// another model.
func TestConvert(t *testing.T) {
	for _, tt := range []struct {
		command, layers string
		want            []string // some of the lines
	}{
		{"--simple", "", []string{"blocks.0.attn.weight: float8_e4m3fn, tensor", "blocks.0.odd.weight: float8_e4m3fn, tensor", "blocks.0.ff.bias: kept: not a weight"}},
		{"--simple --int8", "", []string{"blocks.0.attn.weight: int8_tensorwise, tensor"}},
		{"--simple --int8 --scaling_mode row", "", []string{"blocks.0.attn.weight: int8_tensorwise, row"}},
		{"--simple --scaling_mode row", "", []string{"blocks.0.attn.weight: float8_e4m3fn_rowwise, row"}},
		{"--simple --int8 --scaling_mode block", "", []string{"blocks.0.ff.weight: int8_blockwise, block 128, block"}},
		{"--simple --scaling_mode block2d --block_size 32", "", []string{"blocks.0.attn.weight: float8_e4m3fn_blockwise, block 32, block"}},
		{"--simple --int8 --scaling_mode row --convrot", "", []string{"blocks.0.attn.weight: int8_tensorwise, row, rotated 256"}},
		{"--simple --int8 --scaling_mode row --dynamic-convrot --convrot-group-size 16", "", []string{"blocks.0.ff.weight: int8_tensorwise, row, rotated 16, dynamic"}},
		{"--simple --input_scale --full_precision_matrix_mult", "", []string{"blocks.0.attn.weight: float8_e4m3fn, tensor, full precision, input scale"}},
		{"--simple --output_dtype float16", "", []string{"blocks.0.attn.weight: float8_e4m3fn, tensor, f16"}},
		{"--simple --nvfp4", "", []string{"blocks.0.attn.weight: nvfp4, dedicated", "lm_head.weight: kept: convert_to_quant keeps it in nvfp4"}},
		{"--simple --mxfp8 --heur", "", []string{"blocks.0.attn.weight: mxfp8, dedicated", "blocks.0.odd.weight: kept: 32 does not divide both sides of [96 80]"}},
		{"--simple --nvfp4 --exclude-layers attn", "", []string{"blocks.0.attn.weight: kept: --exclude-layers", "blocks.0.ff.weight: nvfp4, dedicated"}},
		{"--simple --exclude-layers attn", "", []string{"blocks.0.attn.weight: kept: --exclude-layers", "blocks.0.ff.weight: float8_e4m3fn, tensor"}},
		{"--simple --exclude-layers attn --fallback int8 --fallback-simple", "", []string{"blocks.0.attn.weight: int8_tensorwise, tensor", "blocks.0.ff.weight: float8_e4m3fn, tensor"}},
		{"--simple --exclude-layers attn --fallback int8 --fallback-simple --scaling_mode block --fallback-block-size 64", "", []string{"blocks.0.attn.weight: int8_blockwise, block 64, block"}},
		{"--simple --custom-layers ff --custom-type int8 --custom-simple --custom-scaling-mode row --custom-convrot --custom-convrot-group-size 64", "",
			[]string{"blocks.0.ff.weight: int8_tensorwise, row, rotated 64, custom", "blocks.0.attn.weight: float8_e4m3fn, tensor"}},
		{"--simple --custom-layers ff --custom-type int8 --custom-simple --custom-scaling-mode block --custom-block-size 64 --custom-full-precision-mm", "",
			[]string{"blocks.0.ff.weight: int8_blockwise, block 64, block, full precision"}},
		{"--simple --custom-layers ff --custom-type mxfp8 --custom-simple", "", []string{"blocks.0.ff.weight: mxfp8"}},
		{"--simple --heur", "", []string{"blocks.0.odd.weight: kept: 64 does not divide both sides of [96 80]", "blocks.0.attn.weight: float8_e4m3fn, tensor"}},
		{"--simple --generic_text", "", []string{"blocks.0.attn.weight: float8_e4m3fn, tensor, scale as input"}},
		{"--simple --wan", "", []string{"time_embedding.weight: kept: --wan"}},
		{"--simple", `{"attn": {"format": "int8_tensorwise", "scaling_mode": "row"}, "ff": {"skip": true}, "odd": {"format": "float8_e4m3fn", "full_precision_matrix_mult": true}}`,
			[]string{"blocks.0.attn.weight: int8_tensorwise, row", "blocks.0.odd.weight: float8_e4m3fn, tensor, full precision"}},
		{"--simple", `{"attn": {"format": "int8_blockwise", "scaling_mode": "block", "block_size": 64}}`, []string{"blocks.0.attn.weight: int8_blockwise, block 64, block"}},
	} {
		lines, err := decided(t, tt.command, tt.layers)
		if err != nil {
			t.Errorf("%s %s: %v", tt.command, tt.layers, err)
		}
		for _, want := range tt.want {
			if !slices.Contains(lines, want) {
				t.Errorf("%s %s:\n%s\nwant %s", tt.command, tt.layers, strings.Join(lines, "\n"), want)
			}
		}
	}
}

// TestConvertRefuses: what has no file to reproduce says what to write in its place.
func TestConvertRefuses(t *testing.T) {
	for _, tt := range []struct{ command, layers, want string }{
		{"", "", "learn its rounding, which is left out on purpose: add --simple"},
		{"--nvfp4", "", "add --simple"},
		{"--simple --custom-layers ff --custom-type int8", "", "add --custom-simple"},
		{"--simple --exclude-layers ff --fallback int8", "", "add --fallback-simple"},
		{"--simple --custom-layers ff", "", "--custom-layers needs --custom-type"},
		{"--simple --nvfp4 --custom-layers ff --custom-type fp8", "", "tensorpress quantize --dtype nvfp4"},
		{"--simple --custom-layers ( --custom-type fp8", "", "("},
		{"--simple --exclude-layers (", "", "("},
		{"--simple --preserve_layers (", "", "("},
		{"--simple --mxfp8 --exclude-layers (", "", "("},
		{"", `{"attn": {"format": "float8_e4m3fn"}}`, "add --simple"},
	} {
		if lines, err := decided(t, tt.command, tt.layers); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v, want %s", tt.command, lines, err, tt.want)
		}
	}
	for _, o := range Options() {
		if o.Use != Left {
			continue
		}
		args := []string{"-i", "a", o.Names[0]}
		if o.Kind != Switch {
			args = append(args, append(o.Choices, "1")[0])
		}
		c, err := Parse(args)
		if err != nil {
			t.Errorf("%s: %v", o.Names[0], err)
			continue
		}
		if _, err := c.Convert(nil, nil); err == nil && c.Mode() == "" {
			t.Errorf("%s is followed, and is to be left out", o.Names[0])
		}
	}
}

// TestKeptDtypes: weights that are not quantized come in the dtype that the program
// gives them.
func TestKeptDtypes(t *testing.T) {
	for command, want := range map[string]map[string]safetensors.Dtype{
		"--simple":                                     {"first.weight": safetensors.BF16, "a.bias": safetensors.BF16},
		"--simple --output_dtype float16":              {"first.weight": safetensors.F16},
		"--simple --preserve_layers first":             {"first.weight": safetensors.F32, "a.bias": safetensors.BF16},
		"--simple --krea2":                             {"first.weight": safetensors.F32, "a.bias": safetensors.BF16},
		"--simple --qwen_vlm --output_dtype float16":   {"visual.a.weight": safetensors.BF16, "a.bias": safetensors.F16},
		"--simple --preserve_layers . --mxfp8 --krea2": {"a.bias": safetensors.F32},
	} {
		c, err := Parse(append([]string{"-i", "a"}, strings.Fields(command)...))
		if err != nil {
			t.Fatal(err)
		}
		conversion, err := c.Convert([]string{"first.weight", "visual.a.weight", "a.bias"}, nil)
		if err != nil {
			t.Errorf("%s: %v", command, err)
			continue
		}
		for name, d := range want {
			got := conversion.Kept(checkpoint.Tensor{Tensor: safetensors.Tensor{Name: name, Dtype: safetensors.F32, Shape: []int{8}}})
			if got != d {
				t.Errorf("%s: %s is kept as %s, want %s", command, name, got, d)
			}
		}
	}
}

// TestNotes: options of rounding that is never learned are said; those of the machine
// change no file.
func TestNotes(t *testing.T) {
	c, err := Parse(strings.Fields("-i a --simple --low-memory --num_iter 3"))
	if err != nil {
		t.Fatal(err)
	}
	if notes := c.Notes(); len(notes) != 1 || !strings.HasPrefix(notes[0], "--num_iter decides nothing") {
		t.Errorf("notes are %q", notes)
	}
}

// lines are an output in words: its tensors, what is in the JSON of layers, and
// the metadata.
func (r *Rewriting) lines() (lines []string) {
	for _, e := range r.Edits {
		line := fmt.Sprintf("%s %s %v", e.As.Name, e.As.Dtype, e.As.Shape)
		switch {
		case strings.HasSuffix(e.As.Name, description) && e.Data != nil:
			line = e.As.Name + " " + string(e.Data)
		case e.Data != nil:
			line += fmt.Sprintf(" = %x", e.Data[:min(4, len(e.Data))])
		case e.Source.Name != e.As.Name:
			line += " from " + e.Source.Name
		}
		lines = append(lines, line)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Metadata)) {
		lines = append(lines, key+": "+r.Metadata[key])
	}
	return lines
}

// TestModes: each mode renames, adds and drops what convert_to_quant does, and
// touches no weight.
func TestModes(t *testing.T) {
	f8, f32, u8, i8 := safetensors.F8_E4M3, safetensors.F32, safetensors.U8, safetensors.I8
	json := func(name, text string) (safetensors.Tensor, []byte) {
		return safetensors.Tensor{Name: name + description, Dtype: u8, Shape: []int{len(text)}}, []byte(text)
	}
	float8 := []safetensors.Tensor{
		{Name: "scaled_fp8", Dtype: f8, Shape: []int{2}}, {Name: "a.weight", Dtype: f8, Shape: []int{4, 8}}, {Name: "a.scale_weight", Dtype: f32, Shape: []int{1}},
		{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{4, 8}}, {Name: "b.scale_weight", Dtype: f32, Shape: []int{}}, {Name: "c.weight", Dtype: f8, Shape: []int{4, 8}},
	}
	described, text := json("a", `{"format": "mxfp8", "x": 1}`)
	mxfp8 := []safetensors.Tensor{{Name: "a.weight", Dtype: f8, Shape: []int{32, 32}}, {Name: "a.weight_scale", Dtype: safetensors.F8_E8M0, Shape: []int{128, 4}}, described}
	mxfp8Data := map[string][]byte{described.Name: text, "a.weight_scale": {0, 126, 7}}
	int8 := []safetensors.Tensor{{Name: "a.weight", Dtype: i8, Shape: []int{128, 256}}, {Name: "a.scale_weight", Dtype: f32, Shape: []int{1, 2}}}
	header := map[string]string{layout.HeaderKey: `{"format_version": "1.0", "layers": {"a": {"format": "mxfp8", "x": 1}, "d": {"format": "int8_blockwise", "group_size": 8}}}`}
	withD := append(slices.Clone(mxfp8), safetensors.Tensor{Name: "d.weight", Dtype: i8, Shape: []int{8, 8}})
	for _, tt := range []struct {
		command  string
		tensors  []safetensors.Tensor
		data     map[string][]byte
		metadata map[string]string
		want     []string // some lines; those that begin with - must not be there, as a prefix
	}{
		{"--convert-fp8-scaled --input_scale", float8, nil, nil, []string{
			"a.weight F8_E4M3 [4 8]", "a.weight_scale F32 [] from a.scale_weight", "a.input_scale F32 [] = 0000803f", "-scaled_fp8", "-b.scale_weight", "-a.scale_weight",
			`a.comfy_quant {"format": "float8_e4m3fn"}`}},
		{"--cleanup-fp8-scaled --scaled-fp8-marker 2", float8, nil, nil, []string{"scaled_fp8 F8_E4M3 [2] = 0000", "a.scale_weight F32 []", "-b.scale_weight"}},
		{"--cleanup-fp8-scaled --input_scale", float8, nil, nil, []string{"a.scale_input F32 [] = 0000803f", "c.scale_input F32 [] = 0000803f", "-b.scale_input"}},
		{"--legacy_input_add", float8, nil, nil, []string{"scaled_fp8 F8_E4M3 [1] = 38", "a.scale_input F32 [] = 0000803f", "-c.scale_input", "-b.scale_input"}},
		{"--make-hybrid-mxfp8", mxfp8, mxfp8Data, nil, []string{"a.weight_scalar F32 [] = 0000003f", `a.comfy_quant {"format": "hybrid_mxfp8", "x": 1}`}},
		{"--make-hybrid-mxfp8", withD, mxfp8Data, header, []string{
			layout.HeaderKey + `: {"format_version": "1.0", "layers": {"a": {"format": "hybrid_mxfp8", "x": 1}, "d": {"format": "int8_blockwise", "group_size": 8}}}`}},
		{"--convert-int8-scaled", int8, nil, nil, []string{"a.weight_scale F32 [1 2] from a.scale_weight", `a.comfy_quant {"format": "int8_blockwise", "group_size": 128`}},
		{`--edit-quant --remove-keys x --add-keys 'y':true`, mxfp8, mxfp8Data, nil, []string{`a.comfy_quant {"format": "mxfp8", "y": true}`}},
		{`--edit-quant --add-keys 'y':true --quant-filter nothing`, mxfp8, mxfp8Data, nil, []string{"a.comfy_quant U8 [27]"}},
		{`--edit-quant --remove-keys x`, withD, mxfp8Data, header, []string{
			`a.comfy_quant {"format": "mxfp8"}`, `d.comfy_quant {"format": "int8_blockwise", "group_size": 8}`,
			layout.HeaderKey + `: {"format_version": "1.0", "layers": {"a": {"format": "mxfp8"}, "d": {"format": "int8_blockwise", "group_size": 8}}}`}},
		{`--edit-quant --save-quant-metadata`, mxfp8, mxfp8Data, nil, []string{layout.HeaderKey + `: {"format_version": "1.0", "layers": {"a": {"format": "mxfp8"`}},
	} {
		c, err := Parse(append([]string{"-i", "a"}, strings.Fields(tt.command)...))
		if err != nil {
			t.Fatal(err)
		}
		if c.Mode() == "" {
			t.Errorf("%s is no mode", tt.command)
		}
		r, err := c.Rewrite(saved(t, tt.tensors, tt.data, tt.metadata))
		if err != nil {
			t.Errorf("%s: %v", tt.command, err)
			continue
		}
		lines := r.lines()
		for _, want := range tt.want {
			gone, not := strings.CutPrefix(want, "-")
			if found := slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, gone) }); found == not {
				t.Errorf("%s:\n%s\nwant %s", tt.command, strings.Join(lines, "\n"), want)
			}
		}
	}
}

// TestModesRefuse: a file that is not of the kind that a mode is for.
func TestModesRefuse(t *testing.T) {
	plain := []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.F8_E4M3, Shape: []int{4, 8}}}
	marked := append(slices.Clone(plain), safetensors.Tensor{Name: "scaled_fp8", Dtype: safetensors.I8, Shape: []int{0}})
	broken := append(slices.Clone(plain), safetensors.Tensor{Name: "a" + description, Dtype: safetensors.U8, Shape: []int{4}})
	for _, tt := range []struct {
		command string
		tensors []safetensors.Tensor
		want    string
	}{
		{"--convert-fp8-scaled", plain, "has no tensor scaled_fp8"},
		{"--legacy_input_add", plain, "has no tensor scaled_fp8"},
		{"--legacy_input_add", marked, "is I8, no float"},
		{"--convert-fp8-scaled --hp-filter a", marked, "--hp-filter a matches a"},
		{"--convert-fp8-scaled --hp-filter (", marked, "("},
		{"--edit-quant", plain, "needs --remove-keys, --add-keys or --save-quant-metadata"},
		{"--edit-quant --remove-keys x --quant-filter (", plain, "("},
		{"--edit-quant --remove-keys x", broken, "tensor a.comfy_quant"},
		{"--make-hybrid-mxfp8", broken, "tensor a.comfy_quant"},
		{"--make-hybrid-mxfp8 --tensor-scales nowhere.safetensors", plain, "nowhere.safetensors"},
	} {
		c, err := Parse(append([]string{"-i", "a"}, strings.Fields(tt.command)...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Rewrite(saved(t, tt.tensors, nil, nil)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.command, err, tt.want)
		}
	}
}
