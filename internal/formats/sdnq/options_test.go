package sdnq

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/transpose"
	"github.com/tensorpress/tensorpress/safetensors"
)

// optionRow is one line of testdata/golden/options.tsv.gz: what sdnq made of an
// input with settings beyond dtype and group.
type optionRow struct {
	line, input, class string
	settings           map[string]any
	raises             bool
	tensors            map[string]string // by role
	dq                 string
}

func readOptionRows(t *testing.T) []optionRow {
	t.Helper()
	var rows []optionRow
	for _, fields := range golden.Lines(t, "options.tsv.gz") {
		rows = append(rows, parseOptionRow(t, fields))
	}
	if len(rows) < 2000 {
		t.Fatalf("%d rows, want over 2000", len(rows))
	}
	return rows
}

func parseOptionRow(t *testing.T, fields []string) optionRow {
	t.Helper()
	line := strings.Join(fields, "\t")
	r := optionRow{line: line, input: fields[0], class: fields[1], tensors: map[string]string{}}
	if err := json.Unmarshal([]byte(fields[2]), &r.settings); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	for _, field := range fields[3:] {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "raise":
			r.raises = true
		case "dq":
			r.dq = value
		default:
			r.tensors[key] = value
		}
	}
	return r
}

var kinds = map[string]Kind{
	"Linear": Linear, "Embedding": Embedding, "Conv1d": Conv, "Conv2d": Conv, "Conv3d": Conv,
	"ConvTranspose1d": ConvTranspose, "ConvTranspose2d": ConvTranspose, "ConvTranspose3d": ConvTranspose,
}

// options are ours for the row's settings; false for what is not built.
func (r optionRow) options(in golden.Input) (o Options, known bool) {
	svd := false // the factors are free: see TestGivenFactors
	o = Options{Kind: kinds[r.class], Dtype: dtype.Lookup("int8"), ScaleDtype: safetensors.F32, ExactReference: true}
	for key, v := range r.settings {
		switch key {
		case "weights_dtype":
			o.Dtype = dtype.Lookup(v.(string))
		case "group_size":
			o.GroupSize = int(v.(float64))
		case "use_svd", "svd_rank", "svd_steps":
			svd = true
		case "use_hadamard":
			if v == true && o.Hadamard == 0 {
				o.Hadamard = 256
			}
		case "hadamard_group_size":
			o.Hadamard = int(v.(float64))
		case "use_codebook":
			o.Codebook = v.(bool)
		case "codebook_steps":
			if o.CodebookSteps = int(v.(float64)); o.CodebookSteps == 0 {
				o.CodebookSteps = -1
			}
		case "use_codebook_scale":
			o.CodebookScale = v.(bool)
		case "scale_dtype":
			o.ScaleStore = dtype.Lookup(v.(string))
			if r.settings["zero_point_dtype"] == nil {
				o.ZeroPointStore = o.ScaleStore
			}
		case "zero_point_dtype":
			o.ZeroPointStore = dtype.Lookup(v.(string))
		case "use_quantized_matmul":
			o.Matmul = v.(bool)
		case "quantized_matmul_dtype":
			o.MatmulDtype = dtype.Lookup(v.(string))
		case "dequantize_fp32":
			if v == false {
				o.ScaleDtype = in.Dtype
			}
		default:
			return o, false
		}
	}
	if r.settings["scale_dtype"] != nil || r.settings["zero_point_dtype"] != nil {
		o.ScaleDtype = safetensors.F32 // "none" counts as set
	}
	return o, !svd
}

// TestOptionsEqualReference: layers of any kind, and all of SDNQ's settings,
// would not be what sdnq writes.
func TestOptionsEqualReference(t *testing.T) {
	t.Parallel()
	inputs := golden.InputFile(t, "options")
	compared := map[string]int{}
	for i, r := range readOptionRows(t) {
		if testing.Short() && i%9 != 0 {
			continue
		}
		o, known := r.options(inputs[r.input])
		if !known {
			continue
		}
		compared[r.class]++
		compareOptions(t, r, inputs[r.input], o)
	}
	t.Log(compared)
}

// TestGivenFactors: with SDNQ's own factors of a low-rank part, which are free,
// all else that it stores must be the same bytes.
func TestGivenFactors(t *testing.T) {
	inputs := golden.InputFile(t, "options")
	factors := golden.InputFile(t, "options_svd")
	compared := 0
	for i, r := range readOptionRows(t) {
		if testing.Short() && i%7 > 0 {
			continue
		}
		at := r.tensors["svd"]
		up, found := factors[at+".svd_up"]
		if at == "" || !found || r.settings["svd_rank"] == 0.0 {
			continue
		}
		compared++
		compareFactored(t, r, inputs[r.input], up, factors[at+".svd_down"])
	}
	if least := map[bool]int{true: 140, false: 1000}[testing.Short()]; compared < least {
		t.Errorf("%d rows", compared)
	}
}

func compareFactored(t *testing.T, r optionRow, in, up, down golden.Input) {
	t.Helper()
	o, _ := r.options(in)
	o.Rank, o.ModelDtype = 4, in.Dtype
	s, err := NewScheme(in.Shape, o)
	if err != nil {
		t.Errorf("%s: %v", r.line, err)
		return
	}
	if s.Hadamard == 8 {
		return
	}
	w := append([]float32(nil), in.W...)
	if err := s.roundAndRotate(0, w); err != nil {
		t.Fatal(err)
	}
	product := make([]float32, len(w))
	turned := s.Matmul
	kernel.ProductFused(kernel.Rows{X: product, Stride: s.geometry.rest, Count: s.geometry.rows, Values: s.geometry.rest},
		untransposed(up, turned), untransposed(down, turned))
	for i, p := range product {
		w[i] -= floats.RoundTo(p, up.Dtype)
	}
	// The same scheme without what is done already.
	o.Rank, o.Hadamard, o.ModelDtype, o.GroupSize = 0, 0, 0, s.GroupSize
	q, err := Quantize(w, in.Shape, o)
	if err != nil {
		t.Errorf("%s: %v", r.line, err)
		return
	}
	for i, tensor := range q.Scheme.Tensors() {
		if got, want := golden.Describe(tensor, q.Data[i]), r.tensors[string(tensor.Role)]; got != want {
			t.Errorf("%s: %s is %s", r.line, tensor.Role, got)
		}
	}
}

func untransposed(in golden.Input, turned bool) []float32 {
	if !turned {
		return in.W
	}
	x := make([]float32, len(in.W))
	transpose.All(x, in.W, in.Shape[0], in.Shape[1])
	return x
}

func compareOptions(t *testing.T, r optionRow, in golden.Input, o Options) {
	t.Helper()
	q, err := Quantize(in.W, in.Shape, o)
	if (err != nil) != r.raises {
		t.Errorf("%s: error %v", r.line, err)
	}
	if err != nil {
		return
	}
	if q.Scheme.Hadamard == 8 {
		return // the library that made the vectors sums these in another order
	}
	roles := 0
	for i, tensor := range q.Scheme.Tensors() {
		roles++
		if got, want := golden.Describe(tensor, q.Data[i]), r.tensors[string(tensor.Role)]; got != want {
			t.Errorf("%s: %s is %s", r.line, tensor.Role, got)
		}
	}
	if roles != len(r.tensors) {
		t.Errorf("%s: %d tensors", r.line, roles)
	}
	w, err := Dequantize(q)
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 4*len(w))
	kernel.NarrowF32(raw, w)
	if got := golden.Hash(golden.CanonicalNaN(raw, safetensors.F32)); got != r.dq && !strings.HasPrefix(r.dq, "raise") {
		t.Errorf("%s: dequantized %s", r.line, got)
	}
}
