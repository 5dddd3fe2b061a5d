package codec

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// storable are all names that a layer can be stored under in the comfy layout.
func storable() []string {
	var names []string
	for _, f := range Formats() {
		if f != sdnqFormat && f.ReadOnly == "" {
			names = append(names, f.Name)
		}
	}
	for _, t := range dtype.All() {
		if t.Storable() {
			names = append(names, "sdnq:"+t.Name)
		}
	}
	return names
}

func made(t *testing.T, src Source, s Settings) (*Format, Codec, pyjson.Object) {
	t.Helper()
	f, err := Resolve(s.Dtype, false)
	if err != nil {
		t.Fatal(err)
	}
	f = f.Scaled(s.Scale)
	c, metadata, err := f.Make(src, s)
	if err != nil {
		t.Fatalf("%+v: %v", s, err)
	}
	return f, c, metadata
}

// written is a layer as a reader finds it: its metadata as read from text.
func written(t *testing.T, c Codec, metadata pyjson.Object) *Stored {
	t.Helper()
	o, err := pyjson.ParseObject([]byte(pyjson.Dump(metadata)))
	if err != nil {
		t.Fatal(err)
	}
	l := &Stored{Metadata: o, Tensors: map[tile.Role]tile.Tensor{}}
	for _, tensor := range c.Tensors() {
		l.Tensors[tensor.Role] = tensor
	}
	return l
}

// TestMetadataTellsTheLayer: what we write must be enough to read it again, in
// every format and dtype.
func TestMetadataTellsTheLayer(t *testing.T) {
	for _, name := range storable() {
		for _, group := range []int{0, -1, -2, 16} {
			if !strings.HasPrefix(name, "sdnq:") && group != 0 {
				continue
			}
			for _, d := range []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16} {
				for _, fp32 := range []bool{true, false} {
					src := Source{Shape: []int{256, 256}, Dtype: d}
					f, c, metadata := made(t, src, Settings{Dtype: name, GroupSize: group, DequantizeFP32: fp32})
					again, err := f.Open(written(t, c, metadata))
					if err != nil || !reflect.DeepEqual(again.Tensors(), ofWeight(c)) || again.Cut() != c.Cut() {
						t.Errorf("%s, group %d, %v, fp32 %v: %v", name, group, d, fp32, err)
					}
				}
			}
		}
	}
}

// ofWeight are a layer's tensors without a scale of activations, which restoring it
// does not need.
func ofWeight(c Codec) []tile.Tensor {
	return slices.DeleteFunc(c.Tensors(), func(t tile.Tensor) bool { return t.Role == tile.InputScale })
}

// TestTensorsTellTheLayer: in the sdnq layout config and tensors must be
// enough; the shape is a hint where one scale stands for all packed values.
func TestTensorsTellTheLayer(t *testing.T) {
	for _, name := range storable() {
		for _, shape := range [][]int{{32, 64}, {1, 64}} {
			for _, group := range []int{0, -1, -2, 16} {
				if !strings.HasPrefix(name, "sdnq:") {
					continue
				}
				src := Source{Shape: shape, Dtype: safetensors.BF16}
				_, c, metadata := made(t, src, Settings{Dtype: name, GroupSize: group, DequantizeFP32: true})
				l := written(t, c, metadata)
				again, err := FromConfig(l, Settings{Dtype: strings.TrimPrefix(name, "sdnq:"), GroupSize: group, DequantizeFP32: true}, shape)
				if err != nil || !reflect.DeepEqual(again.Tensors(), c.Tensors()) || again.Cut() != c.Cut() {
					t.Errorf("%s %v, group %d: %v", name, shape, group, err)
				}
			}
		}
	}
}

// TestFromConfigRefuses: a shape that the tensors contradict, or do not tell.
func TestFromConfigRefuses(t *testing.T) {
	u8, f32 := safetensors.U8, safetensors.F32
	tests := []struct {
		name          string
		weight, scale tile.Tensor
		dtype         string
		hint          []int
		want          string
	}{
		{"unknown dtype", tile.Tensor{}, tile.Tensor{}, "int17", nil, "int17"},
		{"scale of one dimension", tile.Tensor{Dtype: u8, Shape: []int{8}}, tile.Tensor{Dtype: f32, Shape: []int{8}}, "uint8", nil, "cannot be told"},
		{"no shape", tile.Tensor{Dtype: u8, Shape: []int{8}}, tile.Tensor{Dtype: f32, Shape: []int{1, 1}}, "int4", nil, "cannot be told"},
		{"wrong hint", tile.Tensor{Dtype: u8, Shape: []int{8}}, tile.Tensor{Dtype: f32, Shape: []int{1, 1}}, "int4", []int{3, 8}, "want U8"},
		{"huge hint", tile.Tensor{Dtype: u8, Shape: []int{8}}, tile.Tensor{Dtype: f32, Shape: []int{1, 1}}, "int4", []int{1 << 62, 1 << 62}, "too large"},
		{"hint of no rows", tile.Tensor{Dtype: u8, Shape: []int{8}}, tile.Tensor{Dtype: f32, Shape: []int{1, 1}}, "int4", []int{0}, "cannot be told"},
		{"groups do not divide", tile.Tensor{Dtype: safetensors.I8, Shape: []int{2, 3, 4}}, tile.Tensor{Dtype: f32, Shape: []int{2, 5, 1}}, "int8", nil, "want"},
		{"no rows", tile.Tensor{Dtype: safetensors.I8, Shape: []int{0, 4}}, tile.Tensor{Dtype: f32, Shape: []int{0, 1}}, "int8", nil, "empty"},
		{"low scale", tile.Tensor{Dtype: safetensors.I8, Shape: []int{2, 4}}, tile.Tensor{Dtype: safetensors.BF16, Shape: []int{2, 1}}, "int8", nil, "want F32"},
	}
	for _, tt := range tests {
		l := &Stored{Tensors: map[tile.Role]tile.Tensor{tile.Weight: tt.weight, tile.Scale: tt.scale}}
		if _, err := FromConfig(l, Settings{Dtype: tt.dtype, GroupSize: -2, DequantizeFP32: true}, tt.hint); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want it to hold %q", tt.name, err, tt.want)
		}
	}
}

// hostile is metadata of a uint4 layer of shape [32, 64] with one key changed.
func hostile(key, value string) string {
	values := map[string]string{
		"format_version": `1`, "weights_dtype": `"uint4"`, "group_size": `16`,
		"orig_shape": `[32, 64]`, "orig_dtype": `"torch.bfloat16"`,
	}
	values[key] = value
	var items []string
	for k, v := range values {
		if v != "" {
			items = append(items, fmt.Sprintf("%q: %s", k, v))
		}
	}
	return "{" + strings.Join(items, ", ") + "}"
}

func storedUint4(t testing.TB, metadata string) *Stored {
	t.Helper()
	o, err := pyjson.ParseObject([]byte(metadata))
	if err != nil {
		t.Fatal(err)
	}
	scale := []int{32, 4, 1}
	return &Stored{Metadata: o, Tensors: map[tile.Role]tile.Tensor{
		tile.Weight:    {Role: tile.Weight, Dtype: safetensors.U8, Shape: []int{1024}},
		tile.Scale:     {Role: tile.Scale, Dtype: safetensors.F32, Shape: scale},
		tile.ZeroPoint: {Role: tile.ZeroPoint, Dtype: safetensors.F32, Shape: scale},
	}}
}

// TestHostileMetadata: a file from elsewhere must not take the program down,
// nor its memory, nor its time.
func TestHostileMetadata(t *testing.T) {
	tests := []struct{ key, value, want string }{
		{"group_size", "-3", "group size"},
		{"group_size", "0", "does not fit"},
		{"group_size", "24", "does not fit"},
		{"group_size", "64", "fit shape"},
		{"group_size", "99999999999999999999", "whole number"},
		{"group_size", `"16"`, "want a int"},
		{"group_size", "", "does not fit"},
		{"orig_shape", "[1099511627775, 3]", "does not fit"},
		{"orig_shape", "[3, 1099511627775]", "does not fit"},
		{"orig_shape", "[1099511627776, 1099511627776]", "too large"},
		{"orig_shape", "[99999999999999, 2]", "not a shape"},
		{"orig_shape", "[-32, -64]", "not a shape"},
		{"orig_shape", "[32, 0]", "empty"},
		{"orig_shape", "[2048]", "dimensions"},
		{"orig_shape", "[]", "dimensions"},
		{"orig_shape", "[[32], 64]", "whole number"},
		{"orig_shape", "[64, 64]", "want U8"},
		{"orig_shape", "null", "want a list"},
		{"weights_dtype", `"uint17"`, "uint17"},
		{"weights_dtype", `"float32"`, "cannot store"},
		{"weights_dtype", `"int4"`, "has a zero_point"},
		{"weights_dtype", `["uint4"]`, "weights_dtype"},
		{"weights_dtype", "", "unknown dtype"},
		{"dequantize_fp32", "false", "want BF16"},
		{"format_version", "2", "version 2"},
		{"format_version", "", "format_version"},
		{"kind", `"conv2d"`, "dimensions"},
		{"kind", `"conv9d"`, "kind"},
		{"svd_rank", `"8"`, "svd_rank"},
		{"use_hadamard", "[]", "use_hadamard"},
		{"scale_dtype", `"uint8"`, "want U8"},
	}
	if _, err := SDNQ().Open(storedUint4(t, hostile("kind", `"linear"`))); err != nil {
		t.Fatalf("the layer itself: %v", err)
	}
	for _, tt := range tests {
		_, err := SDNQ().Open(storedUint4(t, hostile(tt.key, tt.value)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %s: %v, want it to hold %q", tt.key, tt.value, err, tt.want)
		}
	}
}

// TestPrimeColumns: the search for the next group that divides must not run
// through a claimed shape, which would take hours.
func TestPrimeColumns(t *testing.T) {
	for _, group := range []string{"0", "2"} {
		o := strings.Replace(hostile("orig_shape", "[1, 1099511627773]"), `"group_size": 16`, `"group_size": `+group, 1)
		if _, err := SDNQ().Open(storedUint4(t, o)); err == nil {
			t.Errorf("group %s: opened", group)
		}
	}
}

// TestScaledRefuses: ComfyUI's formats whose tensors are not as they must be.
func TestScaledRefuses(t *testing.T) {
	i8, f32 := safetensors.I8, safetensors.F32
	weight := tile.Tensor{Role: tile.Weight, Dtype: i8, Shape: []int{4, 8}}
	scale := func(d safetensors.Dtype, shape ...int) tile.Tensor {
		return tile.Tensor{Role: tile.Scale, Dtype: d, Shape: shape}
	}
	tests := []struct {
		name, metadata string
		weight         tile.Tensor
		scale          []tile.Tensor
		want           string // "" for none
	}{
		{"scalar", `{}`, weight, []tile.Tensor{scale(f32)}, ""},
		{"one value", `{}`, weight, []tile.Tensor{scale(f32, 1)}, ""},
		{"rows", `{"params": {"convrot": false}}`, weight, []tile.Tensor{scale(f32, 4, 1)}, ""},
		{"the row of one", `{"convrot": false}`, tile.Tensor{Dtype: i8, Shape: []int{1, 8}}, []tile.Tensor{scale(f32, 1, 1)}, ""},
		{"no scale", `{}`, weight, nil, "scale is missing"},
		{"flat rows", `{}`, weight, []tile.Tensor{scale(f32, 4)}, "want F32 [4 1]"},
		{"too many rows", `{}`, weight, []tile.Tensor{scale(f32, 5, 1)}, "want F32 [4 1]"},
		{"half", `{}`, weight, []tile.Tensor{scale(safetensors.F16)}, "want F32"},
		{"unsigned", `{}`, tile.Tensor{Dtype: safetensors.U8, Shape: []int{4, 8}}, []tile.Tensor{scale(f32)}, "want I8"},
		{"no weight", `{}`, tile.Tensor{}, []tile.Tensor{scale(f32)}, "shape"},
		{"empty", `{}`, tile.Tensor{Dtype: i8, Shape: []int{0, 8}}, []tile.Tensor{scale(f32)}, "empty"},
		{"rotated", `{"convrot": true}`, weight, []tile.Tensor{scale(f32)}, "rotation groups"},
		{"rotated below", `{"params": {"convrot": true}}`, weight, []tile.Tensor{scale(f32)}, "rotation groups"},
		{"zero point", `{}`, weight, []tile.Tensor{scale(f32), {Role: tile.ZeroPoint}}, "zero_point"},
	}
	for _, tt := range tests {
		o, err := pyjson.ParseObject([]byte(tt.metadata))
		if err != nil {
			t.Fatal(err)
		}
		l := &Stored{Metadata: o, Tensors: map[tile.Role]tile.Tensor{tile.Weight: tt.weight}}
		for _, s := range tt.scale {
			l.Tensors[s.Role] = s
		}
		_, err = int8Tensorwise.Open(l)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want it to hold %q", tt.name, err, tt.want)
		}
	}
}

// TestResolve: the same name means different things in the two layouts.
func TestResolve(t *testing.T) {
	tests := []struct {
		name, comfy, sdnq string // format, or what the error holds
	}{
		{"int8", "sdnq", "sdnq"},
		{"float8_e4m3fn", "float8_e4m3fn", "sdnq"},
		{"sdnq:float8_e4m3fn", "sdnq", "sdnq"},
		{"fp8", "float8_e4m3fn", "sdnq"},
		{"int8_tensorwise", "int8_tensorwise", "comfy layout alone"},
		{"sdnq:int8_tensorwise", "comfy layout alone", "comfy layout alone"},
		{"sdnq", `unknown dtype "sdnq"`, "unknown dtype"},
		{"float32", "cannot store", "cannot store"},
		{"", "unknown dtype", "unknown dtype"},
	}
	for _, tt := range tests {
		for inSDNQ, want := range map[bool]string{false: tt.comfy, true: tt.sdnq} {
			got := ""
			f, err := Resolve(tt.name, inSDNQ)
			if err != nil {
				got = err.Error()
			} else {
				got = f.Name
			}
			if got != want && (err == nil || !strings.Contains(got, want)) {
				t.Errorf("%q, sdnq layout %v: %s, want %s", tt.name, inSDNQ, got, want)
			}
		}
	}
}

// TestCheck: settings that no layer can follow are an error of the command,
// not a reason to keep every layer.
func TestCheck(t *testing.T) {
	tests := []struct {
		s    Settings
		want string
	}{
		{Settings{Dtype: "int8", GroupSize: -3}, "want -2, -1, 0 or more"},
		{Settings{Dtype: "int8", Scale: "row"}, "not `Scale`"},
		{Settings{Dtype: "int8_tensorwise", GroupSize: 64}, "no group size"},
		{Settings{Dtype: "int8_tensorwise", Scale: "sideways"}, "row or tensor"},
		{Settings{Dtype: "float8_e5m2", Scale: "row"}, "scale tensor"},
		{Settings{Dtype: "int8", GroupSize: -2}, ""},
		{Settings{Dtype: "int8_tensorwise", Scale: "tensor"}, ""},
	}
	for _, tt := range tests {
		f, err := Resolve(tt.s.Dtype, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Check(tt.s); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want it to hold %q", tt.s, err, tt.want)
		}
	}
}

// FuzzOpen: no metadata may panic, and what opens must account for its tensors.
func FuzzOpen(f *testing.F) {
	f.Add(hostile("kind", `"linear"`))
	f.Add(hostile("orig_shape", "[3, 1099511627775]"))
	f.Add(hostile("group_size", "-2"))
	f.Add(`{"convrot": true, "params": {"convrot": 1}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := pyjson.ParseObject([]byte(text)); err != nil {
			return
		}
		for _, format := range Formats() {
			l := storedUint4(t, text)
			c, err := format.Open(l)
			if err != nil {
				continue
			}
			for _, tensor := range c.Tensors() {
				if !sameShape(tensor.Shape, l.Tensors[tensor.Role].Shape) {
					t.Errorf("%s %s: %s has shape %v", format.Name, text, tensor.Role, tensor.Shape)
				}
			}
		}
	})
}
