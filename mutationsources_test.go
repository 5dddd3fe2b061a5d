package tensorpress_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// image is a model in memory, to be changed and written as no writer of ours
// would.
type image struct {
	tensors  []imageTensor
	metadata map[string]string
	beside   map[string]string // JSON files beside the weights
	folder   bool
	shards   int                       // files of a folder, 0 for one without an index
	index    func(text string) string  // what becomes of the index; nil for nothing
	lies     func(file []byte) []byte  // what becomes of the first file; nil for nothing
	header   func(header *imageHeader) // what becomes of the first file's header
	missing  bool                      // the last shard is not there
}

type imageTensor struct {
	name  string
	dtype safetensors.Dtype
	shape []int
	data  []byte // never changed, only replaced
}

// imageHeader is what the header of a file says of its tensors.
type imageHeader map[string]*imageEntry

type imageEntry struct {
	Dtype   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets []int  `json:"data_offsets"`
}

// clone is a copy whose parts can be replaced.
func (m *image) clone() *image {
	c := *m
	c.tensors = slices.Clone(m.tensors)
	c.metadata, c.beside = maps.Clone(m.metadata), maps.Clone(m.beside)
	return &c
}

// find is the tensor of that name, nil if there is none.
func (m *image) find(name string) *imageTensor {
	i := slices.IndexFunc(m.tensors, func(t imageTensor) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	return &m.tensors[i]
}

// drop takes a tensor away.
func (m *image) drop(name string) {
	m.tensors = slices.DeleteFunc(m.tensors, func(t imageTensor) bool { return t.name == name })
}

// write puts it into an empty folder, whose path, or the path of its file, is
// returned.
func (m *image) write(t *testing.T, dir string) string {
	t.Helper()
	put := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range m.beside {
		put(name, []byte(text))
	}
	n := max(m.shards, 1)
	names, places := make([]string, n), map[string]string{}
	for i := range n {
		names[i] = "model.safetensors"
		if m.shards > 0 {
			names[i] = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, n)
		}
		from, to := i*len(m.tensors)/n, (i+1)*len(m.tensors)/n
		for _, one := range m.tensors[from:to] {
			places[one.name] = names[i]
		}
		if data := m.file(t, m.tensors[from:to], i == 0); i == 0 || i < n-1 || !m.missing {
			put(names[i], data)
		}
	}
	if m.shards > 0 {
		text, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": places})
		if err != nil {
			t.Fatal(err)
		}
		if m.index != nil {
			text = []byte(m.index(string(text)))
		}
		put("model.safetensors.index.json", text)
	}
	if m.folder {
		return dir
	}
	return filepath.Join(dir, names[0])
}

// file is one of weights.
func (m *image) file(t *testing.T, tensors []imageTensor, first bool) []byte {
	t.Helper()
	header, at := imageHeader{}, 0
	for _, one := range tensors {
		header[one.name] = &imageEntry{one.dtype.String(), append([]int{}, one.shape...), []int{at, at + len(one.data)}}
		at += len(one.data)
	}
	if first && m.header != nil {
		m.header(&header)
	}
	all := map[string]any{}
	for name, entry := range header {
		all[name] = entry
	}
	if len(m.metadata) > 0 {
		all["__metadata__"] = m.metadata
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	for len(text)%8 > 0 {
		text = append(text, ' ')
	}
	data := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	for _, one := range tensors {
		data = append(data, one.data...)
	}
	if first && m.lies != nil {
		data = m.lies(data)
	}
	return data
}

// imageOf reads a file, or a folder of one, with the JSON that stands beside it.
func imageOf(t testing.TB, path string) *image {
	t.Helper()
	m := &image{beside: map[string]string{}}
	dir, file := filepath.Dir(path), path
	if !strings.HasSuffix(path, ".safetensors") {
		m.folder, dir, file = true, path, filepath.Join(path, "model.safetensors")
	}
	for _, name := range []string{"config.json", "quantization_config.json"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			m.beside[name] = string(text)
		}
	}
	f, err := safetensors.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m.metadata = maps.Clone(f.Header().Metadata)
	for _, one := range f.Header().Tensors {
		data := make([]byte, one.Size)
		if err := f.ReadSection(one, data, 0); err != nil {
			t.Fatal(err)
		}
		m.tensors = append(m.tensors, imageTensor{one.Name, one.Dtype, one.Shape, data})
	}
	return m
}

// subject is a model that is mutated.
type subject struct {
	name string
	make func(t *testing.T) *image
}

// plainSources are what subjects are made of, as files and as folders.
type plainSources struct{ linears, kinds, linearsFolder, kindsFolder string }

func newPlainSources(t *testing.T) *plainSources {
	t.Helper()
	return &plainSources{fixture.Written(t, linears), fixture.Written(t, otherKinds), inFolder(t, fixture.Written(t, linears)), inFolder(t, fixture.Written(t, otherKinds))}
}

// inFolder makes a model's folder of a file.
func inFolder(t *testing.T, path string) string {
	t.Helper()
	dir := filepath.Dir(path)
	if err := os.Rename(path, filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	config := `{"architectures": ["Some"], "dtype": "bfloat16", "hidden_size": 64}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// linears hold every format and option; kinds are what else SDNQ stores.
var (
	linears = []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{64, 128}}, {Name: "a.bias", Dtype: safetensors.BF16, Shape: []int{64}},
		{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{64, 128}}, {Name: "c.weight", Dtype: safetensors.BF16, Shape: []int{48, 64}},
		{Name: "norm.weight", Dtype: safetensors.BF16, Shape: []int{64}},
	}
	otherKinds = []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{32, 16, 3, 3}}, {Name: "a.bias", Dtype: safetensors.BF16, Shape: []int{32}},
		{Name: "b.conv_transpose.weight", Dtype: safetensors.BF16, Shape: []int{16, 32, 2, 2}},
		{Name: "c.embed_tokens.weight", Dtype: safetensors.BF16, Shape: []int{80, 64}},
	}
)

// sdnqSubjects are every storage class with every option.
var sdnqSubjects = append([]fixture.SettingCase{
	{Dtype: "int8", Settings: tensorpress.Settings{}}, {Dtype: "int8", Settings: tensorpress.Settings{GroupSize: new(-2)}}, {Dtype: "int8", Settings: tensorpress.Settings{GroupSize: new(32)}}, {Dtype: "uint8", Settings: tensorpress.Settings{GroupSize: new(-1)}},
	{Dtype: "uint4", Settings: tensorpress.Settings{}}, {Dtype: "uint4", Settings: tensorpress.Settings{GroupSize: new(-2)}}, {Dtype: "int4", Settings: tensorpress.Settings{GroupSize: new(-1)}}, {Dtype: "int5", Settings: tensorpress.Settings{}}, {Dtype: "uint6", Settings: tensorpress.Settings{GroupSize: new(16)}},
	{Dtype: "uint1", Settings: tensorpress.Settings{}}, {Dtype: "int12", Settings: tensorpress.Settings{}}, {Dtype: "int16", Settings: tensorpress.Settings{}}, {Dtype: "sdnq:float8_e4m3fn", Settings: tensorpress.Settings{}}, {Dtype: "sdnq:float8_e5m2", Settings: tensorpress.Settings{GroupSize: new(-2)}},
	{Dtype: "float6_e3m2fn", Settings: tensorpress.Settings{}}, {Dtype: "float4_e2m1fn", Settings: tensorpress.Settings{GroupSize: new(16)}}, {Dtype: "float16", Settings: tensorpress.Settings{}},
}, fixture.SettingCases...)

// subjects are outputs of every format with every option, and models of others
// that are read.
func subjects(t *testing.T) []subject {
	from := newPlainSources(t)
	var all []subject
	add := func(name string, make func(t *testing.T) *image) { all = append(all, subject{name, make}) }
	for _, c := range comfyCases {
		name := caseName(c.json)
		add("comfy "+name, func(t *testing.T) *image { return pressed(t, from.linears, c.o) })
		add("header "+name, func(t *testing.T) *image {
			o := c.o
			o.QuantizationMetadata = true
			m := pressed(t, from.linears, o)
			m.tensors = slices.DeleteFunc(m.tensors, func(one imageTensor) bool { return strings.HasSuffix(one.name, ".comfy_quant") })
			return m
		})
	}
	for _, s := range sdnqSubjects {
		name := caseName(fmt.Sprint(s.Dtype, s.Settings))
		o := tensorpress.Options{Layout: "sdnq", Layer: fixture.Also(s.Settings, tensorpress.Settings{Dtype: s.Dtype})}
		self := o
		self.Layout = "comfy"
		add("sdnq file "+name, func(t *testing.T) *image { return pressed(t, from.linears, o) })
		add("sdnq folder "+name, func(t *testing.T) *image { return pressed(t, from.linearsFolder, o) })
		add("self-described "+name, func(t *testing.T) *image { return pressed(t, from.linears, self) })
		o.Conv, o.Embedding, self.Conv, self.Embedding = true, true, true, true
		add("sdnq file kinds "+name, func(t *testing.T) *image { return pressed(t, from.kinds, o) })
		add("sdnq folder kinds "+name, func(t *testing.T) *image { return pressed(t, from.kindsFolder, o) })
		add("self-described kinds "+name, func(t *testing.T) *image { return pressed(t, from.kinds, self) })
	}
	for _, name := range []string{"scaled_fp8", "weight_scale_inv", "weight_scale"} {
		add("foreign "+name, func(t *testing.T) *image { return imageOf(t, "testdata/golden/foreign/"+name+".safetensors") })
	}
	for _, name := range publishedModels(t) {
		add("published "+name, func(t *testing.T) *image { return imageOf(t, "testdata/golden/published/"+name) })
	}
	for _, name := range []string{"fp8_block32", "int8_row_convrot64", "nvfp4", "mxfp8"} {
		add("ctq "+name, func(t *testing.T) *image { return imageOf(t, "testdata/golden/ctq/one."+name+".safetensors") })
	}
	add("ctq hybrid_mxfp8", func(t *testing.T) *image {
		hybrid := filepath.Join(t.TempDir(), "hybrid.safetensors")
		rewrite(t, "testdata/golden/ctq/one.mxfp8.safetensors", hybrid)
		return imageOf(t, hybrid)
	})
	add("svdquant_w4a4", func(t *testing.T) *image { return imageOf(t, "testdata/golden/svdquant.safetensors") })
	bank := fixture.Written(t, experts)
	for _, o := range expertCases() {
		if o.Layer.Search == nil || !*o.Layer.Search {
			add("experts "+o.Layer.Dtype+o.Layer.Scale, func(t *testing.T) *image { return pressed(t, bank, o) })
		}
	}
	add("sharded", func(t *testing.T) *image {
		m := pressed(t, from.linearsFolder, tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint4"}})
		m.shards = 3
		return m
	})
	slices.SortFunc(all, func(a, b subject) int { return strings.Compare(a.name, b.name) })
	return all
}

// caseName has no character that go test would split or change but spaces.
func caseName(text string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("{}\"[]/", r) {
			return -1
		}
		return r
	}, strings.NewReplacer("format: ", "", "map", " ", `"format": `, "", `"orig_dtype": "torch.bfloat16"`, "", ",", "").Replace(text))
}

// pressed is a source, quantized.
func pressed(t *testing.T, source string, o tensorpress.Options) *image {
	t.Helper()
	o.Preset, o.MinNumel, o.MinChannels = "none", fixture.Ptr(0), fixture.Ptr(0)
	path := filepath.Join(t.TempDir(), "out")
	if strings.HasSuffix(source, ".safetensors") {
		path += ".safetensors"
	}
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(path), o); err != nil {
		t.Fatal(err)
	}
	return imageOf(t, path)
}

// TestSubjectsHaveEveryFormat: a format that nobody mutates could go its own
// way.
func TestSubjectsHaveEveryFormat(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	for _, s := range subjects(t) {
		if strings.HasPrefix(s.name, "sdnq") || testing.Short() && strings.HasPrefix(s.name, "self") {
			continue
		}
		v, err := tensorpress.Inspect(t.Context(), files.Dir(s.make(t).write(t, t.TempDir())))
		if err != nil || len(v.Layers) == 0 {
			t.Errorf("%s: %+v, %v", s.name, v, err)
			continue
		}
		for _, l := range v.Layers {
			found[l.Format] = true
		}
	}
	for _, f := range codec.Formats() {
		if !found[f.Name] && !(testing.Short() && f == codec.SDNQ()) {
			t.Errorf("no subject has %s", f.Name)
		}
	}
}

// publishedModels are those of other programs that are read.
func publishedModels(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("testdata/golden/published")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}
