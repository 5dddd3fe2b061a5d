package tensorpress_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/safetensors"
)

// mutation is one change of a model.
type mutation struct {
	field, name string
	do          func(m *image)
	want        outcome
}

// outcome is what is known of a mutated model beforehand.
type outcome int

const (
	whatever outcome = iota // all that matters is that the commands agree
	same                    // it means what it meant before
	refused                 // nothing can be made of it
)

// jsonPlace is where a model holds JSON.
type jsonPlace struct {
	name string
	get  func(m *image) string
	set  func(m *image, text string)
}

// places are all that a model has; of layers' own JSON that of one.
func places(m *image) []jsonPlace {
	var all []jsonPlace
	for _, key := range []string{"quantization_config", "_quantization_metadata"} {
		if m.metadata[key] != "" {
			all = append(all, jsonPlace{key, func(m *image) string { return m.metadata[key] }, func(m *image, text string) { m.metadata[key] = text }})
		}
	}
	for _, name := range []string{"config.json", "quantization_config.json"} {
		if m.beside[name] != "" {
			all = append(all, jsonPlace{name, func(m *image) string { return m.beside[name] }, func(m *image, text string) { m.beside[name] = text }})
		}
	}
	for _, t := range m.tensors {
		if strings.HasSuffix(t.name, ".comfy_quant") {
			name := t.name
			return append(all, jsonPlace{name, func(m *image) string { return string(m.find(name).data) }, func(m *image, text string) {
				t := m.find(name)
				t.data, t.shape = []byte(text), []int{len(text)}
			}})
		}
	}
	return all
}

// mutations are all of a model.
func mutations(t *testing.T, m *image) []mutation {
	all := []mutation{{"nothing", "nothing", func(*image) {}, same}}
	for _, p := range places(m) {
		all = append(all, textMutations(m, p)...)
		v, err := pyjson.ParseObject([]byte(p.get(m)))
		if err != nil {
			t.Fatal(p.name, err)
		}
		all = append(all, jsonMutations(p, v, nil, v)...)
	}
	all = append(all, tensorMutations(m)...)
	return append(all, fileMutations(m)...)
}

// texts are what becomes of JSON as text.
var texts = []struct {
	name string
	of   func(text string) string
	want outcome
}{
	{"text: cut in half", func(s string) string { return s[:len(s)/2] }, refused},
	{"text: last byte cut", func(s string) string { return s[:len(s)-1] }, refused},
	{"text: empty", func(string) string { return "" }, refused},
	{"text: a space", func(string) string { return " " }, refused},
	{"text: zero bytes", func(s string) string { return strings.Repeat("\x00", len(s)) }, refused},
	{"text: a zero byte behind", func(s string) string { return s + "\x00" }, whatever},
	{"text: a list", func(s string) string { return "[" + s + "]" }, refused},
	{"text: null", func(string) string { return "null" }, refused},
	{"text: a number", func(string) string { return "8" }, refused},
	{"text: text in quotes", func(s string) string { return pyjson.Dump(s) }, refused},
	{"text: twice", func(s string) string { return s + s }, refused},
	{"text: an empty object", func(string) string { return "{}" }, whatever},
	{"text: a byte order mark", func(s string) string { return "\ufeff" + s }, whatever},
	{"text: not UTF-8", func(s string) string { return strings.Replace(s, "{", "{\"\xff\xfe\": 1, ", 1) }, whatever},
	{"text: single quotes", func(s string) string { return strings.ReplaceAll(s, `"`, "'") }, refused},
	{"text: a comma too much", func(s string) string { return s[:len(s)-1] + ",}" }, refused},
	{"text: space around", func(s string) string { return " \n" + s + "\n " }, same},
}

func textMutations(m *image, p jsonPlace) []mutation {
	var all []mutation
	for _, one := range texts {
		want := one.want
		if p.name == "config.json" && !m.folder && want == refused {
			want = whatever // what stands beside a file may be anything's
		}
		if p.name == "quantization_config.json" && want == refused {
			want = whatever // the header, or config.json, may go before it
		}
		if strings.Contains(p.name, "_metadata") && want == refused {
			want = whatever
		}
		all = append(all, mutation{p.name, one.name, func(m *image) { p.set(m, one.of(strings.TrimSpace(p.get(m)))) }, want})
	}
	return all
}

// jsonMutations changes the members of an object that lies at a path in root,
// and those of what they hold.
func jsonMutations(p jsonPlace, root pyjson.Object, path []string, o pyjson.Object) []mutation {
	var all []mutation
	field := strings.Join(append([]string{p.name}, path...), ".")
	add := func(field, name string, want outcome, changed pyjson.Object) {
		text := pyjson.Dump(withObject(root, path, changed))
		all = append(all, mutation{field, name, func(m *image) { p.set(m, text) }, want})
	}
	reversed := slices.Clone(o)
	slices.Reverse(reversed)
	if want := same; len(o) > 1 {
		if len(path) > 0 { // the order of patterns counts
			want = whatever
		}
		add(field, "other order", want, reversed)
	}
	add(field, "one more key", whatever, append(slices.Clone(o), pyjson.Member{Key: "some_other_key", Value: 1}))
	for i, member := range o {
		at := field + "." + strings.NewReplacer("/", "_", " ", "_").Replace(member.Key)
		with := func(v any) pyjson.Object {
			changed := slices.Clone(o)
			changed[i].Value = v
			return changed
		}
		add(at, "deleted", whatever, slices.Delete(slices.Clone(o), i, i+1))
		add(at, "twice", whatever, append(slices.Clone(o), member))
		add(at, "key in capitals", whatever, append(slices.Delete(slices.Clone(o), i, i+1), pyjson.Member{Key: strings.ToUpper(member.Key), Value: member.Value}))
		for _, v := range others(member.Value) {
			add(at, "is "+shortened(pyjson.Dump(v)), whatever, with(v))
		}
		if inner, ok := member.Value.(pyjson.Object); ok && len(path) < 2 {
			all = append(all, jsonMutations(p, root, append(slices.Clone(path), member.Key), inner)...)
		}
	}
	return all
}

func shortened(text string) string {
	text = strings.NewReplacer("/", "_", "\n", " ").Replace(text)
	return text[:min(len(text), 60)]
}

// withObject is root with an object in place of the one at a path.
func withObject(root pyjson.Object, path []string, o pyjson.Object) pyjson.Object {
	if len(path) == 0 {
		return o
	}
	inner, _ := root.Get(path[0])
	return slices.Clone(root).Set(path[0], withObject(inner.(pyjson.Object), path[1:], o))
}

// anyway are values that are tried in place of every other.
var anyway = []any{nil, true, false, "", "x", json.Number("0"), json.Number("1"), json.Number("-1"), json.Number("1.5"), json.Number("99999999999999999999"),
	json.Number("2147483648"), json.Number("NaN"), json.Number("Infinity"), []any{}, []any{json.Number("1")}, pyjson.Object{}}

// plausible are values that some field has somewhere.
var plausible = []any{"int8_tensorwise", "float8_e4m3fn", "nvfp4", "mxfp8", "int8_blockwise", "float8_e4m3fn_blockwise", "sdnq", "convrot_w4a4", "asym_w4a8_int8",
	"uint4", "int8", "int5", "uint8", "float16", "float8_e5m2", "bitsandbytes", "fp8", "torch.float16", "conv2d", "embedding", "linear", "none"}

// others are values of any type in place of one.
func others(v any) []any {
	all := slices.Clone(anyway)
	switch v := v.(type) {
	case string:
		all = append(all, plausible...)
		all = append(all, strings.ToUpper(v), v+" ", v+"\x00", []any{v})
	case json.Number:
		all = append(all, v.String())
		if n, err := v.Int64(); err == nil {
			for _, other := range []int64{2 * n, n / 2, n + 1, n - 1, 4 * n} {
				all = append(all, json.Number(fmt.Sprint(other)))
			}
			all = append(all, json.Number(fmt.Sprint(n)+".0"), []any{v})
		}
	case bool:
		all = append(all, fmt.Sprint(v))
	case []any:
		turned := slices.Clone(v)
		slices.Reverse(turned)
		all = append(all, turned, append(slices.Clone(v), json.Number("1")), append([]any{}, v[:len(v)/2]...), []any{v}, []any{nil})
		for i, item := range v {
			for _, other := range others(item) {
				if _, nested := other.([]any); !nested && i < 2 {
					changed := slices.Clone(v)
					changed[i] = other
					all = append(all, changed)
				}
			}
		}
	case pyjson.Object:
		all = append(all, []any{v})
	}
	dump := pyjson.Dump(v)
	all = slices.DeleteFunc(all, func(other any) bool { return pyjson.Dump(other) == dump })
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(other any) bool {
		text := pyjson.Dump(other)
		defer func() { seen[text] = true }()
		return seen[text]
	})
}

// companions are the names that tensors of a layer have, in any layout.
var companionNames = []string{".scale", ".zero_point", ".scale_2", ".scale_zero_point", ".zero_point_scale", ".zero_point_2", ".svd_up", ".svd_down",
	".weight_scale", ".weight_zp", ".weight_scale_2", ".weight_scale_zp", ".weight_zp_scale", ".weight_zp_2", ".weight_s_rel", ".weight_s_channel",
	".weight_codebook", ".weight_zeros", ".weight_scalar", ".input_scale", ".pre_quant_scale", ".scale_weight", ".scale_input", ".weight_scale_inv",
	".activation_scale", ".weight_zero_point", ".bias", ".weight_shape", ".lora_up", ".comfy_quant"}

// tensorMutations change the tensors of the first layer, and markers.
func tensorMutations(m *image) []mutation {
	var all []mutation
	layer := firstLayer(m)
	for _, one := range m.tensors {
		if one.name != "scaled_fp8" && !strings.HasPrefix(one.name, layer+".") {
			continue
		}
		add := func(name string, do func(t *imageTensor)) {
			all = append(all, mutation{one.name, name, func(m *image) { do(m.find(one.name)) }, whatever})
		}
		all = append(all, mutation{one.name, "deleted", func(m *image) { m.drop(one.name) }, whatever})
		add("renamed", func(t *imageTensor) { t.name += "_x" })
		add("renamed to a prefix", func(t *imageTensor) { t.name = "model." + t.name })
		shapeMutations(one, add)
		dtypeMutations(one, add)
		valueMutations(one, add)
		if other := m.find("b" + strings.TrimPrefix(one.name, layer)); other != nil {
			all = append(all, mutation{one.name, "swapped with b's", func(m *image) {
				x, y := m.find(one.name), m.find(other.name)
				x.name, y.name = y.name, x.name
			}, whatever})
		}
	}
	for _, suffix := range companionNames {
		name := layer + suffix
		if m.find(name) != nil {
			continue
		}
		for label, t := range map[string]imageTensor{
			"a scalar":        {name, safetensors.F32, []int{}, fixture.Float32Bytes(1)},
			"one a row":       {name, safetensors.F32, []int{64, 1}, make([]byte, 256)},
			"odd":             {name, safetensors.BF16, []int{3, 5}, make([]byte, 30)},
			"bytes":           {name, safetensors.U8, []int{64}, make([]byte, 64)},
			"empty":           {name, safetensors.F32, []int{0}, nil},
			"one a row, flat": {name, safetensors.F32, []int{64}, make([]byte, 256)},
		} {
			all = append(all, mutation{name, "added as " + label, func(m *image) { m.tensors = append(m.tensors, t) }, whatever})
		}
	}
	slices.SortStableFunc(all, func(a, b mutation) int { return strings.Compare(a.field+a.name, b.field+b.name) })
	return all
}

// firstLayer is the first by name that has a weight of two dimensions or a
// scale.
func firstLayer(m *image) string {
	layer := ""
	for _, t := range m.tensors {
		name, ok := strings.CutSuffix(t.name, ".weight")
		if ok && t.dtype != safetensors.BF16 && (layer == "" || name < layer) {
			layer = name
		}
	}
	if layer == "" {
		return "a"
	}
	return layer
}

func shapeMutations(one imageTensor, add func(name string, do func(t *imageTensor))) {
	numel := 1
	for _, n := range one.shape {
		numel *= n
	}
	reversed := slices.Clone(one.shape)
	slices.Reverse(reversed)
	for name, shape := range map[string][]int{
		"transposed": reversed, "flat": {numel}, "a column": {numel, 1}, "a row": {1, numel}, "one dimension more": append([]int{1}, one.shape...),
		"one dimension more behind": append(slices.Clone(one.shape), 1), "no dimension": {},
	} {
		if !slices.Equal(shape, one.shape) && (len(shape) > 0 || numel == 1) {
			add(name, func(t *imageTensor) { t.shape = shape })
		}
	}
	if numel > 1 && numel%2 == 0 && len(one.shape) > 1 {
		folded := slices.Clone(one.shape)
		last := len(folded) - 1
		if folded[last]%2 == 0 {
			folded[0], folded[last] = folded[0]*2, folded[last]/2
			add("folded", func(t *imageTensor) { t.shape = folded })
		}
	}
	if len(one.shape) > 0 && one.shape[0] > 1 {
		width := len(one.data) / one.shape[0]
		fewer := append([]int{one.shape[0] - 1}, one.shape[1:]...)
		add("a row less", func(t *imageTensor) { t.shape, t.data = fewer, t.data[:len(t.data)-width] })
		half := append([]int{one.shape[0] / 2}, one.shape[1:]...)
		add("half of the rows", func(t *imageTensor) { t.shape, t.data = half, t.data[:width*half[0]] })
		more := append([]int{one.shape[0] + 1}, one.shape[1:]...)
		add("a row more", func(t *imageTensor) { t.shape, t.data = more, append(slices.Clone(t.data), t.data[:width]...) })
	}
	add("empty", func(t *imageTensor) { t.shape, t.data = []int{0}, nil })
	add("no rows", func(t *imageTensor) { t.shape, t.data = append([]int{0}, one.shape...), nil })
}

// labels are dtypes of the same width.
var labels = map[int][]safetensors.Dtype{
	8:  {safetensors.U8, safetensors.I8, safetensors.F8_E4M3, safetensors.F8_E5M2, safetensors.F8_E8M0, safetensors.BOOL},
	16: {safetensors.BF16, safetensors.F16, safetensors.I16, safetensors.U16},
	32: {safetensors.F32, safetensors.I32, safetensors.U32},
	64: {safetensors.F64, safetensors.I64},
}

func dtypeMutations(one imageTensor, add func(name string, do func(t *imageTensor))) {
	for _, d := range labels[one.dtype.Bits()] {
		if d != one.dtype {
			add("labelled "+d.String(), func(t *imageTensor) { t.dtype = d })
		}
	}
	if one.dtype == safetensors.F32 { // the same values in another dtype
		for _, d := range []safetensors.Dtype{safetensors.BF16, safetensors.F64} {
			add("values as "+d.String(), func(t *imageTensor) {
				var data []byte
				for i := 0; i < len(t.data); i += 4 {
					bits := binary.LittleEndian.Uint32(t.data[i:])
					if d == safetensors.BF16 {
						data = binary.LittleEndian.AppendUint16(data, uint16(bits>>16))
					} else {
						data = binary.LittleEndian.AppendUint64(data, math.Float64bits(float64(math.Float32frombits(bits))))
					}
				}
				t.dtype, t.data = d, data
			})
		}
	}
}

// patterns are bytes that values begin with, by their width.
var patterns = map[int]map[string]uint32{
	8:  {"zero": 0, "all ones": 0xFF, "greatest": 0x7F, "least": 0x80, "infinity": 0x7C, "odd": 0x39},
	16: {"zero": 0, "NaN": 0x7FC0, "infinity": 0x7F80, "negative": 0xBF80, "large": 0x7149, "tiny": 1, "all ones": 0xFFFF},
	32: {"zero": 0, "NaN": 0x7FC00000, "infinity": 0x7F800000, "negative": 0xBF800000, "large": 0x7149F2CA, "tiny": 1, "minus zero": 0x80000000, "all ones": 0xFFFFFFFF},
}

func valueMutations(one imageTensor, add func(name string, do func(t *imageTensor))) {
	width := one.dtype.Bits() / 8
	if len(one.data) == 0 || strings.HasSuffix(one.name, ".comfy_quant") {
		return
	}
	for name, bits := range patterns[one.dtype.Bits()] {
		value := binary.LittleEndian.AppendUint32(nil, bits)[:width]
		add("first value "+name, func(t *imageTensor) { t.data = append(slices.Clone(value), t.data[width:]...) })
		add("every value "+name, func(t *imageTensor) {
			data := slices.Clone(t.data)
			for i := 0; i < len(data); i += width {
				copy(data[i:], value)
			}
			t.data = data
		})
	}
}

// fileMutations are those of files as such.
func fileMutations(m *image) []mutation {
	all := []mutation{
		{"file", "a byte short", lying(func(b []byte) []byte { return b[:len(b)-1] }), refused},
		{"file", "half", lying(func(b []byte) []byte { return b[:len(b)/2] }), refused},
		{"file", "ends in the header", lying(func(b []byte) []byte { return b[:20] }), refused},
		{"file", "seven bytes", lying(func(b []byte) []byte { return b[:7] }), refused},
		{"file", "empty", lying(func([]byte) []byte { return nil }), refused},
		{"file", "a byte more", lying(func(b []byte) []byte { return append(b, 0) }), refused},
		{"file", "zeros", lying(func(b []byte) []byte { return make([]byte, len(b)) }), refused},
		{"file", "longer header said", lying(headerLength(func(n uint64) uint64 { return n + 8 })), refused},
		{"file", "shorter header said", lying(headerLength(func(n uint64) uint64 { return n - 8 })), whatever},
		{"file", "huge header said", lying(headerLength(func(uint64) uint64 { return 1 << 62 })), refused},
		{"file", "header of no bytes", lying(headerLength(func(uint64) uint64 { return 0 })), refused},
		{"header", "overlap", misplaced(func(e *imageEntry) { e.Offsets[0]-- }), refused},
		{"header", "moved", misplaced(func(e *imageEntry) { e.Offsets[0]++; e.Offsets[1]++ }), refused},
		{"header", "turned", misplaced(func(e *imageEntry) { e.Offsets[0], e.Offsets[1] = e.Offsets[1], e.Offsets[0] }), refused},
		{"header", "beyond the end", misplaced(func(e *imageEntry) { e.Offsets[1] += 1 << 20 }), refused},
		{"header", "unknown dtype", misplaced(func(e *imageEntry) { e.Dtype = "Q4" }), refused},
		{"header", "negative side", misplaced(func(e *imageEntry) { e.Shape[0] = -1 }), refused},
		{"header", "huge side", misplaced(func(e *imageEntry) { e.Shape[0] = 1 << 62 }), refused},
	}
	if m.shards == 0 {
		return all
	}
	index := func(name string, of func(text string) string) {
		all = append(all, mutation{"index", name, func(m *image) { m.index = of }, refused})
	}
	index("empty", func(string) string { return "" })
	index("cut", func(s string) string { return s[:len(s)/2] })
	index("a shard that is not there", func(s string) string { return strings.Replace(s, "-00001-", "-00009-", 1) })
	index("the wrong shard", func(s string) string { return strings.Replace(s, "-00001-", "-00002-", 1) })
	index("a tensor not listed", func(s string) string {
		return strings.Replace(s, `"a.scale":"model-00001-of-00003.safetensors",`, "", 1)
	})
	index("a tensor that is not there", func(s string) string {
		return strings.Replace(s, `"a.scale":`, `"x.scale":"model-00001-of-00003.safetensors","a.scale":`, 1)
	})
	index("out of the folder", func(s string) string { return strings.ReplaceAll(s, "model-00001", "../model-00001") })
	index("a number for a name", func(s string) string { return strings.Replace(s, `"model-00001-of-00003.safetensors"`, "1", 1) })
	return append(all, mutation{"index", "a shard is missing", func(m *image) { m.missing = true }, refused})
}

func lying(of func(b []byte) []byte) func(*image) { return func(m *image) { m.lies = of } }

func headerLength(of func(n uint64) uint64) func(b []byte) []byte {
	return func(b []byte) []byte {
		binary.LittleEndian.PutUint64(b, of(binary.LittleEndian.Uint64(b)))
		return b
	}
}

// misplaced changes what the header says of the largest tensor.
func misplaced(of func(e *imageEntry)) func(*image) {
	return func(m *image) {
		m.header = func(header *imageHeader) {
			var most *imageEntry
			for _, e := range *header {
				if size := func(e *imageEntry) int { return e.Offsets[1] - e.Offsets[0] }; len(e.Shape) > 0 && (most == nil || size(e) > size(most) || size(e) == size(most) && e.Offsets[0] > most.Offsets[0]) {
					most = e
				}
			}
			of(most)
		}
	}
}
