package layout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// file is a checkpoint in words: tensors by name, either "I8 4 8", with bodies
// of zeros, or the text of a U8 tensor after "=".
type file struct {
	tensors  map[string]string
	metadata map[string]string
	beside   map[string]string // further files
	bodies   map[string][]byte // of tensors that are not zeros
}

func (f file) open(t testing.TB) *checkpoint.Checkpoint {
	t.Helper()
	var tensors []safetensors.Tensor
	for name, words := range f.tensors {
		tensors = append(tensors, described(t, name, words))
	}
	h, err := safetensors.NewHeader(tensors, f.metadata)
	if err != nil {
		t.Fatal(err)
	}
	b := h.Encode()
	for _, tensor := range h.Tensors {
		body := make([]byte, tensor.Size)
		if text, ok := strings.CutPrefix(f.tensors[tensor.Name], "="); ok {
			copy(body, text)
		}
		copy(body, f.bodies[tensor.Name])
		b = append(b, body...)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("model.safetensors", b)
	for name, text := range f.beside {
		write(name, []byte(text))
	}
	path := filepath.Join(dir, "model.safetensors")
	if _, model := f.beside["config.json"]; model {
		path = dir
	}
	c, err := checkpoint.Open(source.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func described(t testing.TB, name, words string) safetensors.Tensor {
	t.Helper()
	if text, ok := strings.CutPrefix(words, "="); ok {
		return safetensors.Tensor{Name: name, Dtype: safetensors.U8, Shape: []int{len(text)}}
	}
	fields := strings.Fields(words)
	d, err := safetensors.ParseDtype(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	shape := []int{}
	for _, f := range fields[1:] {
		n := 0
		for _, digit := range f {
			n = 10*n + int(digit-'0')
		}
		shape = append(shape, n)
	}
	return safetensors.Tensor{Name: name, Dtype: d, Shape: shape}
}

// with is a copy with some tensors changed, or, if they are "", removed.
func (f file) with(changes ...string) file {
	tensors := map[string]string{}
	for name, words := range f.tensors {
		tensors[name] = words
	}
	for i := 0; i < len(changes); i += 2 {
		if tensors[changes[i]] = changes[i+1]; changes[i+1] == "" {
			delete(tensors, changes[i])
		}
	}
	f.tensors = tensors
	return f
}

func (f file) header(text string) file {
	f.metadata = map[string]string{HeaderKey: text}
	return f
}

func read(t testing.TB, f file) *Model {
	t.Helper()
	m, err := Read(f.open(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const uint4JSON = `{"format": "sdnq", "format_version": 1, "weights_dtype": "uint4", "group_size": 16, ` +
	`"orig_shape": [4, 32], "orig_dtype": "torch.float16"}`

var (
	int8File = file{tensors: map[string]string{
		"a.weight": "I8 4 8", "a.weight_scale": "F32 4 1", "a.bias": "BF16 4",
		"a.comfy_quant": `={"format": "int8_tensorwise", "orig_dtype": "torch.float16", "per_row": true}`,
	}}
	uint4File = file{tensors: map[string]string{
		"a.weight": "U8 64", "a.weight_scale": "F32 4 2 1", "a.weight_zp": "F32 4 2 1", "a.comfy_quant": "=" + uint4JSON,
	}}
	sdnqFile = file{
		tensors: map[string]string{"a.weight": "U8 64", "a.scale": "F32 4 2 1", "a.zero_point": "F32 4 2 1", "n.weight": "BF16 4"},
		beside:  map[string]string{"quantization_config.json": `{"quant_method": "sdnq", "weights_dtype": "uint4"}`},
	}
)

// changed is text with one part of it replaced.
func changed(text, old, with string) string { return "=" + strings.Replace(text, old, with, 1) }

// TestComfyLayers: a layer is what its tensors and its JSON say, or a problem
// that names what is wrong.
func TestComfyLayers(t *testing.T) {
	tests := []struct {
		name  string
		file  file
		dtype string
		want  string // what the layer's error holds, "" for none
	}{
		{"int8", int8File, "int8_tensorwise", ""},
		{"float8", int8File.with("a.weight", "F8_E4M3 4 8", "a.weight_scale", "F32", "a.comfy_quant", `={"format": "float8_e4m3fn"}`), "float8_e4m3fn", ""},
		{"input scale", int8File.with("a.input_scale", "F32"), "int8_tensorwise", ""},
		{"keys of other programs", int8File.with("a.comfy_quant", `={"format": "int8_tensorwise", "full_precision_matrix_mult": true, "x": [{}]}`), "int8_tensorwise", ""},
		{"uint4", uint4File, "uint4", ""},
		{"kind linear", uint4File.with("a.comfy_quant", changed(uint4JSON, "}", `, "kind": "linear"}`)), "uint4", ""},
		{"header wins", int8File.with("a.comfy_quant", "=broken").header(`{"format_version": "1.0", "layers": {"a": {"format": "int8_tensorwise"}}}`), "int8_tensorwise", ""},
		{"header alone", int8File.with("a.comfy_quant", "").header(`{"layers": {"a": {"format": "int8_tensorwise"}}}`), "int8_tensorwise", ""},
		{"dead entries", int8File.header(`{"layers": {"model.a": {"format": "nvfp4"}}}`), "int8_tensorwise", ""},
		{"F16 scale", int8File.with("a.weight_scale", "F16 4 1"), "int8_tensorwise", ""},
		{"header without layers", int8File.header(`{"layers": []}`), "int8_tensorwise", ""},

		{"header wins, wrongly", int8File.header(`{"layers": {"a": {"format": "nvfp5"}}}`), "nvfp5", `format "nvfp5" is not supported`},
		{"entry of the header is none", int8File.header(`{"layers": {"a": "int8"}}`), "", "not an object"},
		{"unknown format", int8File.with("a.comfy_quant", `={"format": "int3"}`), "int3", `format "int3" is not supported`},
		{"no format", int8File.with("a.comfy_quant", `={}`), "", "names no format"},
		{"format is a list", int8File.with("a.comfy_quant", `={"format": ["sdnq"]}`), "", "names no format"},
		{"broken JSON", int8File.with("a.comfy_quant", `={"format": `), "", "comfy_quant: "},
		{"JSON of no object", int8File.with("a.comfy_quant", `=[]`), "", "not a JSON object"},
		{"no JSON", int8File.with("a.comfy_quant", "U8 0"), "", "comfy_quant: "},
		{"text of another dtype", int8File.with("a.comfy_quant", "I8 16"), "", "want U8"},
		{"text too long", int8File.with("a.comfy_quant", "U8 65537"), "", "with at most 65536"},
		{"no weight", int8File.with("a.weight", ""), "int8_tensorwise", "its weight is missing"},
		{"no scale", int8File.with("a.weight_scale", ""), "int8_tensorwise", "scale is missing"},
		{"scale of another shape", int8File.with("a.weight_scale", "F32 3 1"), "int8_tensorwise", "scale is F32 [3 1], want F32 [4 1]"},
		{"scale of another dtype", int8File.with("a.weight_scale", "F8_E5M2 4 1"), "int8_tensorwise", "want F32"},
		{"weight of another dtype", int8File.with("a.weight", "U8 4 8"), "int8_tensorwise", "weight is U8 [4 8], want I8"},
		{"zero point too many", int8File.with("a.weight_zp", "F32 4 1"), "int8_tensorwise", "has a zero_point"},
		{"rotated", int8File.with("a.comfy_quant", `={"format": "int8_tensorwise", "convrot": true}`), "int8_tensorwise", "rotation groups of 256 do not divide"},
		{"zero point missing", uint4File.with("a.weight_zp", ""), "uint4", "zero_point is missing"},
		{"low-rank part", uint4File.with("a.svd_up", "F32 4 1"), "uint4", "has a svd_up"},
		{"double quantization", uint4File.with("a.weight_scale_2", "F32"), "uint4", "has a scale_2"},
		{"later version", uint4File.with("a.comfy_quant", changed(uint4JSON, `version": 1`, `version": 2`)), "uint4", "version 2"},
		{"kind conv2d", uint4File.with("a.comfy_quant", changed(uint4JSON, "}", `, "kind": "conv2d"}`)), "uint4", "dimensions"},
		{"unknown dtype", uint4File.with("a.comfy_quant", changed(uint4JSON, "uint4", "uint17")), "uint17", "uint17"},
		{"group that does not fit", uint4File.with("a.comfy_quant", changed(uint4JSON, `size": 16`, `size": 5`)), "uint4", "group size 5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := read(t, tt.file)
			if len(m.Layers) != 1 || m.Layout != Comfy {
				t.Fatalf("%d layers, layout %v", len(m.Layers), m.Layout)
			}
			l := m.Layers[0]
			if l.Name != "a" || l.Dtype != tt.dtype {
				t.Errorf("layer %s is %q, want %q", l.Name, l.Dtype, tt.dtype)
			}
			checkLayer(t, m, l, tt.want)
		})
	}
}

// checkLayer makes sure that a layer either decodes or says why not, and that
// each tensor belongs to it or is plain.
func checkLayer(t *testing.T, m *Model, l *Layer, want string) {
	t.Helper()
	switch {
	case want == "" && (l.Err != nil || l.Codec == nil || len(l.Parts) != len(l.Codec.Tensors())):
		t.Errorf("%v, %d parts", l.Err, len(l.Parts))
	case want != "" && (l.Err == nil || !strings.Contains(l.Err.Error(), want) || l.Codec != nil):
		t.Errorf("%v, want it to hold %q", l.Err, want)
	}
	if failed := m.Failed(); (failed == nil) != (want == "") || failed != nil && !strings.Contains(failed.Error(), "layer a: ") {
		t.Errorf("Failed: %v", failed)
	}
	if n := len(l.Tensors) + len(m.Plain); n != len(m.Checkpoint.Tensors) {
		t.Errorf("%d of %d tensors are accounted for", n, len(m.Checkpoint.Tensors))
	}
	if _, known := m.Checkpoint.Lookup("a.weight"); known && !slices.ContainsFunc(l.Tensors, func(t checkpoint.Tensor) bool { return t.Name == "a.weight" }) {
		t.Error("the layer has no weight")
	}
	if len(l.Shape()) != 2 && want == "" {
		t.Errorf("shape is %v", l.Shape())
	}
}

// TestSDNQLayers: the config says what the layers are, wherever it stands.
func TestSDNQLayers(t *testing.T) {
	const config = `{"quant_method": "sdnq", "weights_dtype": "uint4"`
	beside := func(f file, files ...string) file {
		f.beside = map[string]string{}
		for i := 0; i < len(files); i += 2 {
			f.beside[files[i]] = files[i+1]
		}
		return f
	}
	inHeader := func(f file, text string) file {
		f.metadata = map[string]string{ConfigKey: text}
		return f
	}
	int8 := file{tensors: map[string]string{"a.weight": "I8 4 8", "a.scale": "F32 4 1"}}
	packed := file{tensors: map[string]string{"a.weight": "U8 64", "a.scale": "F32 1 1"}}
	tests := []struct {
		name  string
		file  file
		dtype string
		want  string
	}{
		{"file beside", sdnqFile, "uint4", ""},
		{"header over file beside", inHeader(beside(int8, ConfigFile, config+"}"), `{"weights_dtype": "int8"}`), "int8", ""},
		{"file beside over config.json", beside(int8, ConfigFile, `{}`, "config.json", `{"quantization_config": `+config+"}}"), "int8", ""},
		{"config.json", beside(sdnqFile, "config.json", `{"quantization_config": `+config+"}}"), "uint4", ""},
		{"a module's dtype", beside(int8, ConfigFile, config+`, "modules_quant_config": {"a": {"weights_dtype": "int8"}}}`), "int8", ""},
		{"a list's dtype", beside(int8, ConfigFile, config+`, "modules_dtype_dict": {"minimum_8bit": ["a"]}}`), "int8", ""},
		{"scales in the model's dtype", beside(int8.with("a.scale", "BF16 4 1"), ConfigFile, `{"dequantize_fp32": false}`), "int8", ""},
		{"a single row", beside(packed, ConfigFile, `{"weights_dtype": "int4"}`), "int4", ""},
		{"shape in the config", beside(packed, ConfigFile, `{"weights_dtype": "int4", "group_size": -2, "tensorpress_shapes": {"a": [8, 16]}}`), "int4", ""},
		{"rows by the bias", beside(packed.with("a.bias", "BF16 8"), ConfigFile, `{"weights_dtype": "int4", "group_size": -2}`), "int4", ""},

		{"no shape", beside(packed, ConfigFile, `{"weights_dtype": "int4", "group_size": -2}`), "int4", "cannot be told"},
		{"shape that does not fit", beside(packed, ConfigFile, `{"weights_dtype": "int4", "group_size": -2, "tensorpress_shapes": {"a": [8, 32]}}`), "int4", "want U8"},
		{"low-rank part", sdnqFile.with("a.svd_up", "F32 4 1", "a.svd_down", "F32 1 32"), "uint4", "has a svd_"},
		{"double quantization", sdnqFile.with("a.scale_2", "F32"), "uint4", "has a scale_2"},
		{"matmul of a small weight", beside(sdnqFile, ConfigFile, config+`, "use_quantized_matmul": true}`), "uint4", ""},
		{"rotation of one module", beside(sdnqFile, ConfigFile, config+`, "modules_quant_config": {"a": {"use_hadamard": true}}}`), "uint4", ""},
		{"module with an unknown setting", beside(sdnqFile, ConfigFile, config+`, "modules_quant_config": {"a": {"typo": 1}}}`), "uint4", "typo"},
		{"transposed", int8With(int8, "I8 8 4", "F32 1 4"), "int8", "want F32"},
		{"zero point missing", sdnqFile.with("a.zero_point", ""), "uint4", "zero_point is missing"},
		{"another dtype", beside(sdnqFile, ConfigFile, `{"weights_dtype": "uint8"}`), "uint8", "want U8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := read(t, tt.file)
			if len(m.Layers) != 1 || m.Layout != SDNQ || m.Config == nil {
				t.Fatalf("%d layers, layout %v", len(m.Layers), m.Layout)
			}
			if l := m.Layers[0]; l.Name != "a" || l.Format != "sdnq" || l.Dtype != tt.dtype {
				t.Errorf("layer %s is %s %s, want %s", l.Name, l.Format, l.Dtype, tt.dtype)
			}
			checkLayer(t, m, m.Layers[0], tt.want)
		})
	}
}

func int8With(f file, weight, scale string) file {
	f = f.with("a.weight", weight, "a.scale", scale)
	f.beside = map[string]string{ConfigFile: `{}`}
	return f
}

// TestPlainModels: what is not quantized, or by others, is no layer of ours.
func TestPlainModels(t *testing.T) {
	plain := file{tensors: map[string]string{"a.weight": "BF16 4 8", "a.scale": "F32 4"}}
	for name, beside := range map[string]map[string]string{
		"nothing beside":    nil,
		"no quantization":   {"config.json": `{"dtype": "bfloat16"}`},
		"others' config":    {"config.json": `{"quantization_config": {"quant_method": "fp8"}}`},
		"config of no kind": {"config.json": `{"quantization_config": 8}`},
	} {
		f := plain
		f.beside = beside
		if m := read(t, f); len(m.Layers) != 0 || m.Layout != nil || len(m.Plain) != 2 || m.Failed() != nil {
			t.Errorf("%s: %d layers, %d plain tensors", name, len(m.Layers), len(m.Plain))
		}
	}
	f := plain.with("a.scale", "")
	f.beside = map[string]string{ConfigFile: `{"weights_dtype": "uint4"}`}
	if m := read(t, f); len(m.Layers) != 0 {
		t.Errorf("a config without layers: %d layers", len(m.Layers))
	}
}

// TestConfigOfOtherWeights: a config beside several files of weights may be another's,
// and describes none of them that does not say so in its header.
func TestConfigOfOtherWeights(t *testing.T) {
	const config, other = `{"quant_method": "sdnq", "weights_dtype": "int4"}`, `{"quant_method": "sdnq", "weights_dtype": "uint4"}`
	tests := []struct {
		name   string
		file   file
		beside string // a second file of weights
		layers int
		err    string
	}{
		{"the only weights", sdnqFile, "", 1, ""},
		{"codes, and others", sdnqFile, "b.safetensors", 0, "may be another's"},
		{"codes, and what is no safetensors", sdnqFile, "training_args.bin", 1, ""},
		{"codes that the header describes", sdnqFile.described(other), "b.safetensors", 1, ""},
		{"plain weights", file{tensors: map[string]string{"a.weight": "BF16 4 8", "a.scale": "F32 4"}}, "b.safetensors", 0, ""},
	}
	for _, tt := range tests {
		f := tt.file
		f.beside = map[string]string{ConfigFile: other}
		if tt.file.metadata != nil {
			f.beside[ConfigFile] = config
		}
		if tt.beside != "" {
			f.beside[tt.beside] = "x"
		}
		m, err := Read(f.open(t), nil)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err == nil && (len(m.Layers) != tt.layers || m.Failed() != nil) {
			t.Errorf("%s: %d layers, %v", tt.name, len(m.Layers), m.Failed())
		}
	}
}

func (f file) described(config string) file {
	f.metadata = map[string]string{ConfigKey: config}
	return f
}

// TestNeighbours: shards of one set are no other weights.
func TestNeighbours(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "m-00001-of-00003.safetensors", "x.GGUF", "config.json", ".m.safetensors", "y.ckpt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Neighbours(source.Path(dir), "m-00001-of-00002.safetensors")
	if want := []string{"m-00001-of-00003.safetensors", "x.GGUF", "y.ckpt"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// TestBrokenDescriptions: what describes the whole checkpoint and cannot be
// read is the checkpoint's error.
func TestBrokenDescriptions(t *testing.T) {
	broken := sdnqFile
	broken.beside = map[string]string{ConfigFile: `{"weights_dtype": "int17"}`}
	for name, f := range map[string]file{
		"header": int8File.header(`{"layers": `), "header is a list": int8File.header(`[]`), "config": broken,
	} {
		c := f.open(t)
		if _, err := Read(c, nil); err == nil || !strings.Contains(err.Error(), c.Path) {
			t.Errorf("%s: %v, want an error that names the file", name, err)
		}
	}
}

// TestDescriptionsThatCannotBeRead: what a disk does is no fault of the layer, which
// verify would call damaged.
func TestDescriptionsThatCannotBeRead(t *testing.T) {
	c := int8File.with("a.weight", "I8 4 1000000", "b.weight", "F32 1000000").open(t) // not in what is read at once
	if err := os.Remove(c.Path); err != nil {
		t.Skip(err) // while it is open
	}
	if _, err := Read(c, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want what the system says", err)
	}
}

// TestShapeFromTheSource: packed weights with one scale can be compared with
// what they were made from.
func TestShapeFromTheSource(t *testing.T) {
	f := file{
		tensors: map[string]string{"a.weight": "U8 64", "a.scale": "F32 1 1"},
		beside:  map[string]string{ConfigFile: `{"weights_dtype": "int4", "group_size": -2}`},
	}
	source := file{tensors: map[string]string{"a.weight": "BF16 16 8"}}
	m, err := Read(f.open(t), source.open(t))
	if err != nil || m.Failed() != nil || !slices.Equal(m.Layers[0].Shape(), []int{16, 8}) {
		t.Errorf("%v, %v, %v", m.Layers[0].Shape(), m.Failed(), err)
	}
}

// TestOrigDtype: the dtype that a layer comes back in.
func TestOrigDtype(t *testing.T) {
	if got := read(t, int8File).Layers[0].OrigDtype; got != safetensors.F16 {
		t.Errorf("comfy: %v", got)
	}
	for text, want := range map[string]safetensors.Dtype{
		`{"dtype": "float16"}`: safetensors.F16, `{"torch_dtype": "bfloat16"}`: safetensors.BF16, `{"dtype": "int8"}`: 0, `{"dtype": 1}`: 0, `{}`: 0,
	} {
		f := sdnqFile
		f.beside = map[string]string{"config.json": text, ConfigFile: f.beside[ConfigFile]}
		if got := read(t, f).Layers[0].OrigDtype; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, l := range []*Layout{SDNQ, Comfy} {
		if got, err := ByName(l.Name); got != l || err != nil {
			t.Errorf("%s: %v, %v", l.Name, got, err)
		}
		seen := map[string]bool{}
		for _, role := range []tile.Role{tile.Weight, tile.Scale, tile.ZeroPoint} {
			name := l.TensorName("x", role)
			if seen[name] || !strings.HasPrefix(name, "x.") {
				t.Errorf("%s: %s is called %s", l.Name, role, name)
			}
			seen[name] = true
		}
		if l.TensorName("x", tile.Weight) != WeightName("x") {
			t.Errorf("%s: weight is called %s", l.Name, l.TensorName("x", tile.Weight))
		}
	}
	if _, err := ByName("gguf"); err == nil || !strings.Contains(err.Error(), "sdnq and comfy") {
		t.Errorf("gguf: %v", err)
	}
}

// TestEveryRoleHasAName: a tensor that a format stores and the layout has no name for
// would take that of its layer.
func TestEveryRoleHasAName(t *testing.T) {
	for _, f := range codec.Formats() {
		if f.ReadOnly != "" {
			continue
		}
		s := codec.Default()
		if s.Dtype = f.Name; f == codec.SDNQ() {
			s.Dtype = "uint4"
		}
		c, _, err := f.Make(codec.Source{Shape: []int{256, 256}, Dtype: safetensors.BF16}, s)
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		for _, tensor := range c.Tensors() {
			if Comfy.suffixes[tensor.Role] == "" {
				t.Errorf("%s stores a %s, which has no name in the comfy layout", f.Name, tensor.Role)
			}
		}
	}
}
