package convert_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/convert"
	"github.com/tensorpress/tensorpress/internal/ctq"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/safetensors"
)

const ctqLines = "../../testdata/golden/ctq/lines"

// TestCommandLinesOfConvertToQuant: a script that calls convert_to_quant would
// get another file. make_ctq_lines.py made the hashes.
func TestCommandLinesOfConvertToQuant(t *testing.T) {
	t.Parallel()
	sources := ctqSources(t)
	equal, excused := 0, 0
	for i, row := range fixture.Tsv(t, ctqLines+"/lines.tsv") {
		if testing.Short() && i%9 != 0 || row[2] == "failed" || row[3] > "1" {
			continue // entries of a header have no order there
		}
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		args := append([]string{"-i", sources[row[0]], "-o", dest, "--device", "cpu"}, ctqWords(row[1])...)
		err := runCTQ(t.Context(), args, fixture.Resources{})
		switch {
		case err != nil:
			t.Errorf("%s %s: %v", row[0], row[1], err)
		case fixture.FileHash(t, dest) == row[2]:
			equal++
		case zeroLayer(t, sources[row[0]], dest):
			excused++
		default:
			t.Errorf("%s %s: another file", row[0], row[1])
		}
	}
	t.Logf("%d files are equal, %d but for all-zero layers", equal, excused)
	if least := map[bool]int{true: 45, false: 440}[testing.Short()]; equal < least {
		t.Errorf("%d files are equal, want at least %d", equal, least)
	}
}

// ctqWords are the arguments of a line as a shell reads them; @ stands for the
// folder.
func ctqWords(line string) (words []string) {
	var word strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\'':
			quoted = !quoted
		case c == '\\' && !quoted:
			i++
			word.WriteByte(line[i])
		case c == ' ' && !quoted:
			words = append(words, word.String())
			word.Reset()
		default:
			word.WriteByte(c)
		}
	}
	words = append(words, word.String())
	for i, w := range words {
		if rest, ok := strings.CutPrefix(w, "@"); ok {
			words[i] = ctqLines + "/" + rest
		}
	}
	return words
}

// zeroLayer reports whether an all-zero layer has a type for which
// convert_to_quant writes tensors of shapes that nothing loads.
func zeroLayer(t *testing.T, source, dest string) bool {
	t.Helper()
	v, err := tensorpress.Inspect(t.Context(), files.Dir(dest))
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, l := range v.Layers {
		if l.Format == "float8_e4m3fn" || l.Format == "float8_e4m3fn_rowwise" {
			continue
		}
		tensor, _ := f.Header().Lookup(l.Name + ".weight")
		raw := make([]byte, tensor.Size)
		if err := f.ReadSection(tensor, raw, 0); err != nil {
			t.Fatal(err)
		}
		if strings.Trim(string(raw), "\x00") == "" {
			return true
		}
	}
	return false
}

// ctqSources writes the files of sources.tsv and returns their paths by name.
func ctqSources(t *testing.T) map[string]string {
	t.Helper()
	folder, paths := t.TempDir(), map[string]string{}
	var name string
	var metadata map[string]string
	var tensors []safetensors.Tensor
	data := map[string][]byte{}
	flush := func() {
		if name != "" {
			paths[name] = filepath.Join(folder, name+".safetensors")
			writeWith(t, paths[name], tensors, data, metadata)
		}
		tensors, metadata = nil, nil
	}
	for _, row := range fixture.Tsv(t, ctqLines+"/sources.tsv") {
		if row[0] == "file" {
			flush()
			name = row[1]
			_ = json.Unmarshal([]byte(row[2]), &metadata) // "-" is none
			continue
		}
		one, raw := ctqTensor(t, row)
		tensors, data[one.Name] = append(tensors, one), raw
	}
	flush()
	return paths
}

func ctqTensor(t *testing.T, row []string) (safetensors.Tensor, []byte) {
	t.Helper()
	dtype, err := safetensors.ParseDtype(row[1])
	if err != nil {
		t.Fatal(err)
	}
	tensor, n := safetensors.Tensor{Name: row[0], Dtype: dtype, Shape: []int{}}, 1
	for d := range strings.SplitSeq(row[2], "x") {
		if d == "" {
			continue
		}
		size, err := strconv.Atoi(d)
		if err != nil {
			t.Fatal(err)
		}
		tensor.Shape, n = append(tensor.Shape, size), n*size
	}
	seed, err := strconv.Atoi(row[4])
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, n*dtype.Bits()/8)
	if dtype == safetensors.I64 {
		for i := range n {
			for b := range 8 {
				raw[8*i+b] = byte(hashed(seed, i) >> 1 >> (8 * b))
			}
		}
		return tensor, raw
	}
	floats.Narrow(raw, ctqValues(tensor.Shape, n, row[3], seed), dtype)
	return tensor, raw
}

// hashed is splitmix64 of a seed and a position.
func hashed(seed, i int) uint64 {
	z := uint64(seed)*0x9E3779B97F4A7C15 + uint64(i+1)*0xD1B54A32D192ED03
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// ctqValues are those of make_ctq_lines.py.
func ctqValues(shape []int, n int, fill string, seed int) []float32 {
	columns := 1
	if len(shape) > 1 {
		columns = max(shape[len(shape)-1], 1)
	}
	x := make([]float32, n)
	for i := range x {
		row, column, h := i/columns, i%columns, hashed(seed, i)
		switch {
		case fill == "zero" || fill == "zeros" && (row%9 == 3 || row < 32 && column/32 == 1):
		case fill == "coarse":
			x[i] = float32(int(h>>56)-128) / 128
		default:
			x[i] = float32(int(h>>40)-1<<23) / (1 << 26) / float32(int(1)<<((row*7+seed)%5))
		}
	}
	return x
}

func writeWith(t *testing.T, path string, tensors []safetensors.Tensor, data map[string][]byte, metadata map[string]string) {
	t.Helper()
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	h, err := safetensors.NewHeader(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	w, err := safetensors.NewWriter(out, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range h.Tensors {
		if err := w.WriteSection(one, data[one.Name], 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
}

// runCTQ runs a command line of convert_to_quant.
func runCTQ(ctx context.Context, args []string, r fixture.Resources) error {
	c, err := ctq.Parse(args)
	if err == nil {
		_, err = convert.CTQ(ctx, c, r)
	}
	return err
}

// TestEmptyCommandOfCTQ: what was never parsed is an error and no panic.
func TestEmptyCommandOfCTQ(t *testing.T) {
	if _, err := convert.CTQ(t.Context(), &ctq.Command{}, fixture.Resources{}); err == nil {
		t.Error("no source is no error")
	}
}

// optionRow is an option's line in docs/from-convert_to_quant.md.
func optionRow(o ctq.Option) string {
	return "| `" + strings.Join(o.Names, "` `") + "` | " + o.Ours + " |"
}

// TestPageNamesEveryOption: one who moves from convert_to_quant must find every
// flag that a script may have.
func TestPageNamesEveryOption(t *testing.T) {
	page := string(fixture.FileBytes(t, "../../docs/from-convert_to_quant.md"))
	options := ctq.Options()
	if len(options) != 117+6 { // and the parts of the help
		t.Errorf("%d options, want 117 and 6 of the help", len(options))
	}
	seen := map[string]bool{}
	for _, o := range options {
		if !strings.Contains(page, optionRow(o)+"\n") {
			t.Errorf("../../docs/from-convert_to_quant.md lacks the line\n%s", optionRow(o))
		}
		for _, name := range o.Names {
			if seen[name] {
				t.Errorf("%s twice", name)
			}
			seen[name] = true
		}
	}
}

// TestLayerConfig: layers become what the names of formats say, where
// convert_to_quant goes by the scaling mode; with --exact-reference they are its
// own, byte for byte.
func TestLayerConfig(t *testing.T) {
	source := ctqSources(t)["mix"]
	config := ctqLines + "/labels.layers.json"
	r, err := tensorpress.Plan(t.Context(), files.Dir(source), nil, tensorpress.Options{Layout: "comfy", Preset: "none", LayerConfig: writtenText(t, `{
		"to_q": {"format": "float8_e4m3fn_blockwise", "block_size": 64},
		"to_k": {"format": "float8_e4m3fn", "scaling_mode": "row"},
		"fc1": {"format": "nvfp4", "block_size": 16, "full_precision_matrix_mult": true},
		"fc2": {"format": "int8_blockwise", "scaling_mode": "row", "block_size": 32},
		"odd": {"skip": true},
		"_default": {"format": "mxfp8"}
	}`)})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Layers {
		_, last, _ := strings.Cut(strings.TrimPrefix(l.Name, "blocks."), ".")
		want, ok := map[string]string{
			"attn.to_q": "float8_e4m3fn_blockwise", "attn.to_k": "float8_e4m3fn_rowwise", "mlp.fc1": "nvfp4", "mlp.fc2": "int8_blockwise", "odd": "F32",
		}[last]
		if !ok && l.Action == "quantize" {
			want = "mxfp8"
		}
		if want != "" && l.Dtype != want {
			t.Errorf("%s is %s, want %s", l.Name, l.Dtype, want)
		}
	}
	exact, theirs := filepath.Join(t.TempDir(), "exact.safetensors"), filepath.Join(t.TempDir(), "ctq.safetensors")
	o := tensorpress.Options{Layout: "comfy", Preset: "none", Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", ExactReference: new(true)}, LayerConfig: config}
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(exact), o); err != nil {
		t.Fatal(err)
	}
	err = runCTQ(t.Context(), []string{"-i", source, "-o", theirs, "--simple", "--layer-config", config}, fixture.Resources{})
	if err != nil || fixture.FileHash(t, theirs) != fixture.FileHash(t, exact) {
		t.Errorf("--exact-reference --layer-config gives another file than ctq, %v", err)
	}
}

func writtenText(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.json")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestInputScales: those of a file or of JSON go to the layers that they name.
func TestInputScales(t *testing.T) {
	source := ctqSources(t)["pt"]
	first, second := filepath.Join(t.TempDir(), "a.safetensors"), filepath.Join(t.TempDir(), "b.safetensors")
	for _, run := range [][]string{
		{"-i", source, "-o", first, "--simple", "--nvfp4", "--input-scales", writtenText(t, `{"c": 0.5, "a.1.mlp": 3}`)},
		{"-i", source, "-o", second, "--simple", "--nvfp4", "--input-scales", first},
	} {
		if err := runCTQ(t.Context(), run, fixture.Resources{}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := safetensors.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tensor, ok := f.Header().Lookup("a.1.mlp.input_scale")
	raw := make([]byte, 4)
	if err := f.ReadSection(tensor, raw, 0); err != nil || !ok || string(raw) != "\x00\x00\x40\x40" || len(tensor.Shape) > 0 {
		t.Errorf("%v %x, want the scalar 3, %v", tensor, raw, err)
	}
	if _, ok := f.Header().Lookup("a.1.attn.input_scale"); ok || fixture.FileHash(t, first) != fixture.FileHash(t, second) {
		t.Error("scales of a file and of JSON give other files, or go to other layers")
	}
}
