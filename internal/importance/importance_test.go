package importance

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// moments are some layers' as they are written to files.
type moments map[string][]float32

func (m moments) names() []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func asBytes(x []float32) []byte {
	var b []byte
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// asSafetensors is a file as tools/moments.py writes it.
func asSafetensors(t testing.TB, m moments, dtype safetensors.Dtype) []byte {
	t.Helper()
	var tensors []safetensors.Tensor
	var data []byte
	for _, name := range m.names() {
		n := len(m[name])
		if dtype != safetensors.F32 {
			n *= 2
		}
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: dtype, Shape: []int{n}})
		data = append(data, asBytes(m[name])...)
	}
	h, err := safetensors.NewHeader(tensors, map[string]string{"samples": "16"})
	if err != nil {
		t.Fatal(err)
	}
	return append(h.Encode(), data...)
}

// ggufFile is an importance matrix as llama-imatrix writes it: sums of squares, and how
// many there were of each matrix.
type ggufFile struct {
	version uint32
	counts  map[string][]float32 // 2 where a tensor has none
	without string               // a tensor's counts that are left out
	dtype   uint32
}

func (g ggufFile) encode(m moments) []byte {
	le := binary.LittleEndian
	text := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	var infos, data []byte
	tensors := uint64(0)
	add := func(name string, shape []uint64, x []float32) {
		infos = le.AppendUint32(text(infos, name), uint32(len(shape)))
		for _, n := range shape {
			infos = le.AppendUint64(infos, n)
		}
		infos = le.AppendUint64(le.AppendUint32(infos, g.dtype), uint64(len(data)))
		data = append(data, asBytes(x)...)
		data = append(data, make([]byte, (64-len(data)%64)%64)...)
		tensors++
	}
	for _, name := range m.names() {
		counts := g.counts[name]
		if counts == nil {
			counts = []float32{2}
		}
		n := len(counts)
		sums := slices.Clone(m[name])
		for i := range sums {
			sums[i] *= counts[i/(len(sums)/n)]
		}
		add(name+".in_sum2", []uint64{uint64(len(sums) / n), uint64(n)}, sums)
		if name != g.without {
			add(name+".counts", []uint64{1, uint64(n)}, counts)
		}
		add(name+".in_sum", []uint64{uint64(len(sums))}, sums)
	}
	version := g.version
	if version == 0 {
		version = 3
	}
	b := le.AppendUint32([]byte("GGUF"), version)
	b = le.AppendUint64(le.AppendUint64(b, tensors), 4)
	b = text(le.AppendUint32(text(b, "general.type"), 8), "imatrix")
	b = le.AppendUint64(le.AppendUint32(le.AppendUint32(text(b, "imatrix.datasets"), 9), 8), 2)
	b = text(text(b, "a.txt"), "b.txt")
	b = le.AppendUint32(le.AppendUint32(text(b, "imatrix.chunk_count"), 4), 7)
	b = le.AppendUint32(le.AppendUint32(text(b, "general.alignment"), 4), 64)
	b = append(b, infos...)
	b = append(b, make([]byte, (64-len(b)%64)%64)...)
	return append(b, data...)
}

// asDat is an older importance matrix.
func asDat(m moments) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(m)))
	for _, name := range m.names() {
		b = append(le.AppendUint32(b, uint32(len(name))), name...)
		b = le.AppendUint32(le.AppendUint32(b, 3), uint32(len(m[name])))
		sums := slices.Clone(m[name])
		for i := range sums {
			sums[i] *= 3
		}
		b = append(b, asBytes(sums)...)
	}
	return append(le.AppendUint32(le.AppendUint32(b, 3), 5), "a.txt"...)
}

func read(t testing.TB, b []byte) *File {
	t.Helper()
	f, err := Read("file", bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func layersOf(names ...string) []Layer {
	var all []Layer
	for _, name := range names {
		all = append(all, Layer{Names: []string{name}})
	}
	return all
}

func match(t testing.TB, f *File, names ...string) *Match {
	t.Helper()
	m, err := f.Match("", nil, layersOf(names...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestEveryFormat: moments weigh the same, whichever program wrote them, and are of mean
// 1, whatever the sample was.
func TestEveryFormat(t *testing.T) {
	values := []float32{1, 2, 3, 2}
	want := []float32{0.5, 1, 1.5, 1}
	for name, b := range map[string][]byte{
		"safetensors": asSafetensors(t, moments{"layers.0.self_attn.q_proj" + Suffix: values, "other": values}, safetensors.F32),
		"gguf":        ggufFile{}.encode(moments{"blk.0.attn_q.weight": values}),
		"gguf 2":      ggufFile{version: 2}.encode(moments{"blk.0.attn_q.weight": values}),
		"dat":         asDat(moments{"blk.0.attn_q.weight": values}),
	} {
		f := read(t, b)
		m := match(t, f, "layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj")
		got, err := m.Weights("layers.0.self_attn.q_proj", 4)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
		if got, err := m.Weights("layers.1.self_attn.q_proj", 4); got != nil || err != nil {
			t.Errorf("%s: a layer without moments has %v, %v", name, got, err)
		}
		if left := f.Unmatched(); len(left) > 0 {
			t.Errorf("%s: %v are left", name, left)
		}
	}
}

// TestWeightsAreBounded: an input that was never seen in a sample may come all the same,
// so that no column counts for nothing; and one number for all is one for all.
func TestWeightsAreBounded(t *testing.T) {
	w := weigh([]float32{0, 0, 3e38, 3e38})
	if !(w[0] > 0) || w[0] > 1e-3 || w[2] != w[3] || math.Abs(float64(w[2])-2) > 1e-2 {
		t.Errorf("weights %v", w)
	}
	for _, x := range []float32{1e-38, 0.3, 7, 3e38} {
		same := slices.Repeat([]float32{x}, 384)
		if w := weigh(same); slices.Min(w) != slices.Max(w) {
			t.Errorf("of all %v: from %v to %v", x, slices.Min(w), slices.Max(w))
		}
	}
	if w := weigh([]float32{0, 0}); w != nil {
		t.Errorf("inputs that were never other than zero weigh %v", w)
	}
}

// TestSameInputsAreHeldOnce: query, key and value have the same inputs, and their codec
// is one as before.
func TestSameInputsAreHeldOnce(t *testing.T) {
	m := match(t, read(t, asSafetensors(t, moments{"q" + Suffix: {1, 2}, "k" + Suffix: {2, 4}, "o" + Suffix: {2, 1}}, safetensors.F32)), "q", "k", "o")
	var all [][]float32
	for _, layer := range []string{"q", "k", "o"} {
		w, err := m.Weights(layer, 2)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	if &all[0][0] != &all[1][0] || &all[0][0] == &all[2][0] {
		t.Error("weights are not shared as they should be")
	}
}

// TestNames: moments are found where programs put something before all names, and those
// of another layer are never taken.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		name          string
		file, layers  []string
		found, folder string // layers that are found, by their places
		others        []string
	}{
		{name: "the same", file: []string{"a.q", "b.q"}, layers: []string{"a.q", "b.q"}, found: "0 1"},
		{name: "a beginning in the model", file: []string{"a.q", "b.q"}, layers: []string{"model.diffusion_model.a.q", "model.diffusion_model.b.q"}, found: "0 1"},
		{name: "a beginning in the file", file: []string{"transformer.a.q", "transformer.b.q"}, layers: []string{"a.q", "b.q"}, found: "0 1"},
		{name: "one in each", file: []string{"transformer.a.q", "transformer.b.q"}, layers: []string{"model.diffusion_model.a.q", "model.diffusion_model.b.q"}, found: "0 1"},
		{name: "most", file: []string{"a.q", "b.q"}, layers: []string{"model.a.q", "model.b.q", "other.a.q"}, found: "0 1"},
		{name: "most, and one as it is", file: []string{"layers.0.q", "layers.1.q", "head"}, layers: []string{"model.layers.0.q", "model.layers.1.q", "head"}, found: "0 1 2"},
		{name: "as they are before others", file: []string{"x.q", "q"}, layers: []string{"x.q"}, found: "0"},
		{name: "none", file: []string{"a.q"}, layers: []string{"a.k", "q"}, found: "1"},
		{name: "no part of a word", file: []string{"proj"}, layers: []string{"a.to_proj"}, found: ""},
		{name: "in its folder", file: []string{"text_encoder.a.q", "text_encoder_2.a.q"}, layers: []string{"a.q"}, folder: "text_encoder", others: []string{"text_encoder_2"}, found: "0"},
		{name: "in another's folder", file: []string{"text_encoder_2.a.q"}, layers: []string{"a.q"}, folder: "text_encoder", others: []string{"text_encoder_2"}, found: ""},
	} {
		all := moments{}
		for i, name := range c.file {
			all[name+Suffix] = []float32{1, float32(i + 2)}
		}
		m, err := read(t, asSafetensors(t, all, safetensors.F32)).Match(c.folder, c.others, layersOf(c.layers...))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var found []string
		for i, layer := range c.layers {
			if m.Has(layer) {
				found = append(found, fmt.Sprint(i))
			}
		}
		if got := strings.Join(found, " "); got != c.found {
			t.Errorf("%s: found %q, want %q", c.name, got, c.found)
		}
	}
}

// TestAmbiguousNames: where two beginnings would do as well, moments may be another
// layer's, and nothing is guessed.
func TestAmbiguousNames(t *testing.T) {
	f := read(t, asSafetensors(t, moments{"q" + Suffix: {1, 2}}, safetensors.F32))
	_, err := f.Match("", nil, layersOf("a.q", "b.q"))
	if err == nil || !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "file: tensor q.input_moment could be for layer a.q, and q.input_moment for layer b.q") {
		t.Errorf("%v", err)
	}
}

// TestFamilies: every row of the table leads from a model's layer to llama.cpp's tensor,
// in any place of a checkpoint.
func TestFamilies(t *testing.T) {
	for _, f := range families {
		for _, row := range f.rows {
			model := strings.NewReplacer("#", "12", "@", "1").Replace(strings.Join(row.model, "."))
			theirs := strings.Replace(row.theirs, "#", "12", 1) + ".weight"
			values, counts := []float32{1, 3}, []float32{5}
			if slices.Contains(row.model, "@") {
				values, counts = []float32{3, 1, 1, 3, 2, 2}, []float32{5, 2, 0}
			}
			for name, b := range map[string][]byte{
				"gguf": ggufFile{counts: map[string][]float32{theirs: counts}}.encode(moments{theirs: values}),
				"dat":  asDat(moments{theirs: values}),
			} {
				for _, before := range []string{"", "model.", "model.language_model."} {
					file := read(t, b)
					w, err := match(t, file, before+model, "vision.proj").Weights(before+model, 2)
					if want := []float32{0.5, 1.5}; err != nil || !slices.Equal(w, want) {
						t.Errorf("%s, %s, %s: %v, %v, want %v", f.name, name, before+model, w, err, want)
					}
				}
			}
		}
	}
}

// TestExpertsThatWereNeverAsked: an expert that no sample reached has no moments.
func TestExpertsThatWereNeverAsked(t *testing.T) {
	const theirs = "blk.0.ffn_up_exps.weight"
	f := read(t, ggufFile{counts: map[string][]float32{theirs: {4, 0}}}.encode(moments{theirs: {1, 3, 1, 1}}))
	layer := "model.layers.0.mlp.experts.%d.up_proj"
	m := match(t, f, fmt.Sprintf(layer, 0), fmt.Sprintf(layer, 1), fmt.Sprintf(layer, 2))
	for i, want := range [][]float32{{0.5, 1.5}, nil} {
		if w, err := m.Weights(fmt.Sprintf(layer, i), 2); err != nil || !slices.Equal(w, want) {
			t.Errorf("expert %d: %v, %v", i, w, err)
		}
	}
	if _, err := m.Weights(fmt.Sprintf(layer, 2), 2); err == nil || !strings.Contains(err.Error(), "has moments of 2 experts") {
		t.Errorf("an expert too many: %v", err)
	}
}

// TestRefused: what is wrong with a file is one line that names it, the tensor and what
// to do, and is the command's fault.
func TestRefused(t *testing.T) {
	nan := float32(math.NaN())
	const q = "blk.0.attn_q.weight"
	good := ggufFile{}.encode(moments{q: {1, 2, 3, 2}})
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"empty":            {nil, "is neither a safetensors file"},
		"text":             {[]byte("some text that is long enough"), "is neither a safetensors file"},
		"no moments":       {asSafetensors(t, moments{"x": {1}}, safetensors.F32), "has no tensor that ends in .input_moment: make one with tools/moments.py"},
		"half":             {asSafetensors(t, moments{"x.input_moment": {1}}, safetensors.BF16), "tensor x.input_moment is BF16 [2]: want F32"},
		"negative":         {asSafetensors(t, moments{"layer.input_moment": {1, -2, 3, 4}}, safetensors.F32), "tensor layer.input_moment: value 1 is -2, and mean squares are finite"},
		"NaN":              {asSafetensors(t, moments{"layer.input_moment": {1, 2, nan, 4}}, safetensors.F32), "tensor layer.input_moment: value 2 is NaN"},
		"infinite":         {asSafetensors(t, moments{"layer.input_moment": {1, 2, 3, float32(math.Inf(1))}}, safetensors.F32), "value 3 is +Inf"},
		"short":            {asSafetensors(t, moments{"layer.input_moment": {1, 2}}, safetensors.F32), "tensor layer.input_moment has 2 values, and layer layer has 4 inputs: moments of this very model"},
		"a model":          {ggufFile{}.encode(moments{}), "is a GGUF file without tensors NAME.in_sum2, a model perhaps"},
		"no counts":        {ggufFile{without: q}.encode(moments{q: {1, 2, 3, 4}}), "tensor " + q + ".in_sum2 has no counts beside it"},
		"other counts":     {ggufFile{counts: map[string][]float32{q: {nan}}}.encode(moments{q: {1, 2, 3, 4}}), "tensor " + q + ".in_sum2: a count of NaN"},
		"other numbers":    {ggufFile{dtype: 1}.encode(moments{q: {1, 2, 3, 4}}), "are not F32"},
		"old GGUF":         {ggufFile{version: 1}.encode(moments{q: {1, 2, 3, 4}}), "version 1 of GGUF: want 2 or 3"},
		"GGUF cut short":   {good[:100], "was cut short"},
		"values cut short": {good[:len(good)-200], "was cut short"},
		"dat cut short":    {asDat(moments{q: {1, 2, 3, 4}})[:30], "was cut short"},
		"dat negative":     {asDat(moments{q: {1, -1, 3, 4}}), "tensor " + q + ": value 1 is -3"},
		"twice":            {slices.Concat(asDat(moments{q: {1}, "b": {1}})[:4], asDat(moments{q: {1}})[4:39], asDat(moments{q: {1}})[4:39]), "tensor " + q + " is there twice"},
	} {
		f, err := Read("file", bytes.NewReader(c.b), int64(len(c.b)))
		if err == nil {
			layer := "layer"
			if f.imatrix {
				layer = "layers.0.self_attn.q_proj"
			}
			_, err = match(t, f, layer).Weights(layer, 4)
		}
		if err == nil || !errors.Is(err, usage.Err) || !strings.HasPrefix(err.Error(), "file: ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestNothingMatches: moments of another model are refused, with a name of either.
func TestNothingMatches(t *testing.T) {
	f := read(t, asSafetensors(t, moments{"a.q" + Suffix: {1}, "a.k" + Suffix: {1}}, safetensors.F32))
	match(t, f, "blocks.0.to_q")
	err := f.CheckMatched("blocks.0.to_q")
	if err == nil || !strings.Contains(err.Error(), "none of its layers, such as a.k, is one of the source, such as blocks.0.to_q") {
		t.Errorf("%v", err)
	}
	if got := f.Unmatched(); !slices.Equal(got, []string{"a.k", "a.q"}) {
		t.Errorf("left: %v", got)
	}
}

// TestOpen: a file that is missing is the system's fault, and a folder the command's.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Open(dir); !errors.Is(err, usage.Err) {
		t.Errorf("folder: %v", err)
	}
	path := filepath.Join(dir, "m.safetensors")
	if err := os.WriteFile(path, asSafetensors(t, moments{"a" + Suffix: {1}}, safetensors.F32), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Path() != path || f.Close() != nil {
		t.Error("it does not close")
	}
}

// FuzzRead: whatever a file holds, there is an answer in little time and memory, an
// error names the file, and weights are positive and finite.
func FuzzRead(f *testing.F) {
	const q = "blk.0.attn_q.weight"
	f.Add(asSafetensors(f, moments{"layers.0.self_attn.q_proj" + Suffix: {1, 2, 3, 4}}, safetensors.F32))
	f.Add(ggufFile{}.encode(moments{q: {1, 2, 3, 4}, "blk.0.ffn_up_exps.weight": {1, 2, 3, 4, 5, 6, 7, 8}}))
	f.Add(asDat(moments{q: {1, 2, 3, 4}, "blk.0.ffn_up_exps.weight": {1, 2, 3, 4, 5, 6, 7, 8}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Read("file", bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "file: ") {
				t.Errorf("%v", err)
			}
			return
		}
		names := []string{"layers.0.self_attn.q_proj", "model.layers.0.mlp.experts.1.up_proj", "model.layers.0.mlp.experts.300.up_proj"}
		m, err := file.Match("", nil, layersOf(names...))
		if err != nil {
			return
		}
		for _, name := range names {
			w, err := m.Weights(name, 4)
			if err != nil && !strings.HasPrefix(err.Error(), "file: ") {
				t.Errorf("%v", err)
			}
			for _, v := range w {
				if !(v > 0) || v > 4 {
					t.Errorf("weights %v", w)
				}
			}
		}
	})
}
