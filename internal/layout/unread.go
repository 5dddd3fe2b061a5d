package layout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// unread describes tensors in which a program stores a weight in a way that is known
// but cannot be decoded.
type unread struct {
	is    string // the program or method
	codes string // suffix of the tensor that identifies the format
	// dtypes are the possible dtypes of that tensor, nil for any.
	dtypes []safetensors.Dtype
	// tells are suffixes of which at least one must exist as well, nil for none.
	tells []string
	// with are the suffixes of all other tensors that belong to the weight.
	with []string
	// when is a condition on shapes, nil if the names suffice.
	when func(codes, first checkpoint.Tensor) bool
}

var (
	u8      = []safetensors.Dtype{safetensors.U8}
	i8      = []safetensors.Dtype{safetensors.I8}
	words   = []safetensors.Dtype{safetensors.I32, safetensors.U32}
	wholes  = []safetensors.Dtype{safetensors.I8, safetensors.U8, safetensors.I16, safetensors.U16, safetensors.I32, safetensors.U32, safetensors.I64, safetensors.U64}
	bnbEnds = []string{
		".weight", ".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map",
		".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4",
	}
	sdnqEnds = []string{".weight", ".scale", ".zero_point", ".scale_2", ".scale_zero_point", ".zero_point_scale", ".zero_point_2", ".svd_up", ".svd_down"}
	ctEnds   = []string{".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx", ".weight_global_scale", ".input_global_scale", ".input_scale", ".input_zero_point", ".scale_packed", ".meta"}
	gptqEnds = []string{".qzeros", ".scales", ".g_idx", ".qscales"}
	nunchaku = []string{
		".wscales", ".wtscale", ".wcscales", ".wzeros", ".smooth", ".smooth_orig", ".smooth_factor", ".smooth_factor_orig",
		".proj_down", ".proj_up", ".lora_down", ".lora_up",
	}
)

// unreads are tried in order; the first that fits counts.
var unreads = []unread{
	{is: "bitsandbytes 4-bit", codes: ".weight", dtypes: u8, tells: bnbEnds[1:], with: bnbEnds},
	{is: "bitsandbytes 4-bit", codes: ".weight.absmax", with: bnbEnds},
	{is: "bitsandbytes int8", codes: ".weight", dtypes: i8, tells: []string{".SCB", ".weight.SCB", ".CB"}, with: []string{".SCB", ".weight.SCB", ".weight_format"}},
	{is: "SVDQuant (nunchaku)", codes: ".qweight", tells: nunchaku, with: nunchaku},
	{is: "FP-Quant", codes: ".qweight", tells: []string{".forward_hadamard_matrix", ".weight_global_scale"}, with: []string{".scales", ".weight_global_scale", ".act_global_scale", ".forward_hadamard_matrix", ".backward_hadamard_matrix"}},
	{is: "GPTQ", codes: ".qweight", tells: []string{".g_idx"}, with: gptqEnds},
	{is: "AWQ", codes: ".qweight", tells: []string{".scales"}, with: gptqEnds, when: packedByColumns},
	{is: "GPTQ", codes: ".qweight", tells: []string{".scales", ".qzeros"}, with: gptqEnds},
	{is: "packed", codes: ".qweight", with: gptqEnds},
	{is: "EXL2", codes: ".q_weight", with: []string{".q_scale", ".q_scale_max", ".q_groups", ".q_invperm", ".q_perm"}},
	{is: "EXL3", codes: ".trellis", with: []string{".suh", ".svh", ".su", ".sv", ".mcg", ".mul1"}},
	{is: "QuIP#", codes: ".Qidxs", with: []string{".SU", ".SV", ".Wscale", ".codebook_id"}},
	{is: "Marlin", codes: ".B", dtypes: words, tells: []string{".s"}, with: []string{".s", ".workspace"}},
	{is: "compressed-tensors, packed", codes: ".weight_packed", with: ctEnds},
	{is: "compressed-tensors, sparse", codes: ".weight.compressed", with: []string{".weight.bitmask", ".weight.shape", ".weight.row_offsets"}},
	{is: "compressed-tensors, sparse", codes: ".compressed", tells: []string{".bitmask"}, with: []string{".bitmask", ".shape", ".row_offsets"}},
	{is: "MXFP4", codes: "_blocks", dtypes: u8, tells: []string{"_scales"}, with: []string{"_scales", "_bias"}},
	{is: "MXFP4", codes: ".blocks", dtypes: u8, tells: []string{".scales"}, with: []string{".scales"}},
	{is: "HQQ", codes: ".W_q", with: []string{".scale", ".zero", ".meta", ".nbits", ".group_size", ".axis", ".packing", ".shape", ".view_as_float", ".channel_wise", ".optimize", ".round_zero", ".compute_dtype", ".quant_scale", ".quant_zero", ".offload_meta", ".encoded_state_dict", ".stores_quant_config", ".unpack_view_dtype"}},
	{is: "EETQ", codes: ".weight", dtypes: i8, tells: []string{".weight_scales"}, with: []string{".weight_scales"}},
	{is: "quanto", codes: ".weight._data._data", with: []string{".weight._scale", ".weight._shift", ".input_scale", ".output_scale"}},
	{is: "quanto", codes: ".weight._data", with: []string{".weight._scale", ".weight._shift", ".input_scale", ".output_scale"}},
	{is: "torchao", codes: "._weight_qdata", with: []string{"._weight_scale", "._weight_zero_point", "._weight_scale_and_zero"}},
	{is: "torchao", codes: ".weight_qdata", with: []string{".weight_scale", ".weight_zero_point", ".weight_scale_and_zero"}},
	{is: "torchao", codes: ".weight:qdata", with: torchao(".weight:")},
	{is: "torchao", codes: ".weight:_data", with: torchao(".weight:_")},
	{is: "torchao", codes: ".weight.tensor_impl.int_data", with: torchao(".weight.tensor_impl.")},
	{is: "torchao", codes: ".weight.tensor_impl.packed_weight", with: torchao(".weight.tensor_impl.")},
	{is: "AQLM", codes: ".codes", tells: []string{".codebooks"}, with: []string{".codebooks", ".scales"}},
	{is: "VPTQ", codes: ".indices", tells: []string{".centroids.weight", ".centroids"}, with: []string{".centroids.weight", ".centroids", ".res_centroids.weight", ".outlier_centroids.weight", ".weight_scale", ".weight_bias", ".perm"}},
	{is: "SpQR", codes: ".dense_weights", with: []string{".row_offsets", ".col_vals", ".in_perm"}},
	{is: "HIGGS", codes: ".weight", tells: []string{".tables"}, dtypes: wholes, with: []string{".scales", ".tables", ".tables2", ".workspace"}},
	{is: "MLX", codes: ".weight", dtypes: words, tells: []string{".scales"}, with: []string{".scales", ".biases"}},
	{is: "asym_w4a8_int8 without its description", codes: ".weight", dtypes: i8, tells: []string{".weight_s_rel", ".weight_s_channel"}, with: []string{".weight_s_rel", ".weight_s_channel", ".weight_codebook"}},
	{is: "awq_w4a16 without its description", codes: ".weight", tells: []string{".weight_zeros"}, dtypes: wholes, with: []string{".weight_scale", ".weight_zeros"}},
	{is: "SDNQ without its quantization_config", codes: ".weight", dtypes: wholes, tells: []string{".scale"}, with: sdnqEnds},
	{is: "SDNQ without its quantization_config", codes: ".svd_up", tells: []string{".svd_down"}, with: sdnqEnds},
}

// torchao returns the suffixes that belong to codes whose own suffix begins with start.
func torchao(start string) (ends []string) {
	for _, part := range []string{"scale", "zero_point", "scale_and_zero"} {
		ends = append(ends, start+part)
	}
	return ends
}

// packedByColumns distinguishes AWQ from GPTQ, which packs rows: codes of AWQ have
// fewer columns than their scales.
func packedByColumns(codes, scales checkpoint.Tensor) bool {
	return len(codes.Shape) == 2 && len(scales.Shape) == 2 && codes.Shape[1] < scales.Shape[1]
}

// cures say what a user can do about some of them; for the others, it is to start from
// the original.
var cures = map[string]string{
	"SDNQ without its quantization_config": "put the model's " + ConfigFile + " or config.json beside the weights, or start from the original",
}

const startOver = "start from the original"

// Other is the layout of layers that cannot be decoded.
var Other = &Layout{Name: "other", suffixes: map[tile.Role]string{tile.Weight: weightSuffix}}

// readUnread makes layers with an error of other programs' tensors that cannot be
// decoded, and of codes that nothing explains, since those are not plain numbers.
func (m *Model) readUnread() {
	taken := m.taken()
	for _, t := range m.Checkpoint.Tensors {
		if taken[t.Name] {
			continue
		}
		l := m.known(t)
		if l == nil && (IsCode(t.Dtype) || m.scaledFlags(t)) {
			l = m.unexplained(t)
		}
		if l == nil {
			continue
		}
		for _, one := range l.Tensors {
			taken[one.Name] = true
		}
		m.Layers = append(m.Layers, l)
		if m.Layout == nil {
			m.Layout = Other
		}
	}
}

// scaledFlags reports whether a tensor is a weight of flags with a scale, which flags
// never have.
func (m *Model) scaledFlags(t checkpoint.Tensor) bool {
	base, weight := strings.CutSuffix(t.Name, weightSuffix)
	return weight && t.Dtype == safetensors.BOOL && len(t.Shape) > 1 && m.scalesOf(t, base) != nil
}

// known returns the layer of a tensor that fits one of the unreads, or nil.
func (m *Model) known(t checkpoint.Tensor) *Layer {
	for _, row := range rowsOf(t.Name) {
		base, ok := strings.CutSuffix(t.Name, row.codes)
		if !ok || row.dtypes != nil && !slices.Contains(row.dtypes, t.Dtype) {
			continue
		}
		first, ok := m.anyOf(base, row.tells)
		if !ok || row.when != nil && !row.when(t, first) {
			continue
		}
		return m.unreadLayer(base, row, t)
	}
	return nil
}

// rowsOf returns the unreads whose codes have the suffix of name.
func rowsOf(name string) []unread {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if strings.HasSuffix(last, "_blocks") {
		last = "_blocks"
	}
	return unreadsBy[last]
}

var unreadsBy = func() map[string][]unread {
	by := map[string][]unread{}
	for _, row := range unreads {
		last := row.codes[strings.LastIndexByte(row.codes, '.')+1:]
		by[last] = append(by[last], row)
	}
	return by
}()

// anyOf returns the first existing tensor with one of the suffixes. No suffixes at all
// count as found.
func (m *Model) anyOf(base string, ends []string) (checkpoint.Tensor, bool) {
	for _, end := range ends {
		if t, ok := m.Checkpoint.Lookup(base + end); ok {
			return t, true
		}
	}
	return checkpoint.Tensor{}, len(ends) == 0
}

func (m *Model) unreadLayer(base string, row unread, codes checkpoint.Tensor) *Layer {
	l := &Layer{Name: base, Layout: Other, Tensors: []checkpoint.Tensor{codes}}
	for _, end := range row.with {
		if t, ok := m.Checkpoint.Lookup(base + end); ok && t.Name != codes.Name {
			l.Tensors = append(l.Tensors, t)
		}
	}
	is := row.is
	if d := m.Declared; d != nil && d.known {
		switch {
		case is == "packed":
			is = d.Method
		case is != d.Method && slices.ContainsFunc(publications, func(p *publication) bool { return p.is == is }):
			is = fmt.Sprintf("%s, though %s says otherwise", is, d)
		}
	}
	l.Format = strings.ToLower(strings.Fields(is)[0])
	l.Format = strings.TrimSuffix(l.Format, ",")
	l.Dtype = l.Format
	cure := startOver
	if c, ok := cures[row.is]; ok {
		cure = c
	}
	l.Err = fmt.Errorf("%s: %s: %s", is, names(l.Tensors), cure)
	return l
}

// names lists a few tensors for a message, the weight first.
func names(tensors []checkpoint.Tensor) string {
	const most = 4
	var list []string
	tensors = slices.Clone(tensors)
	slices.SortStableFunc(tensors, func(a, b checkpoint.Tensor) int {
		return cmp.Compare(notWeight(a.Name), notWeight(b.Name))
	})
	for _, t := range tensors[:min(most, len(tensors))] {
		list = append(list, t.Name)
	}
	if len(tensors) > most {
		list = append(list, "…")
	}
	return strings.Join(list, ", ")
}

// notWeight sorts weights before other tensors.
func notWeight(name string) int {
	if strings.HasSuffix(name, weightSuffix) {
		return 0
	}
	return 1
}

// IsCode reports whether tensors of a dtype are codes rather than numbers or flags.
func IsCode(d safetensors.Dtype) bool {
	return !codec.Floats(d) && d != safetensors.F64 && d != safetensors.BOOL && d != safetensors.C64
}

// scaleWords are parts of the names of scales; they follow the name of the codes.
var scaleWords = []string{"scale", "absmax", "zero", "codebook", "quant", "scb", "s_rel", "shift"}

// unexplained makes a layer of codes that none of the unreads fits: a matrix named like
// a weight, or one with scales beside it. Lists of integers, and matrices of other
// names, are positions, masks and tokenizer data that models keep. 8-bit floats without
// a scale are left to missScales.
func (m *Model) unexplained(t checkpoint.Tensor) *Layer {
	base, weight := strings.CutSuffix(t.Name, weightSuffix)
	scales := m.scalesOf(t, base)
	switch {
	case t.Numel() == 0:
		return nil
	case m.halfOfBlocks(t):
		base = t.Name[:strings.LastIndexByte(t.Name, '_')]
	case scales == nil && (!weight && !calledWeight(t) || len(t.Shape) < 2 || Float8(t.Dtype)):
		return nil
	case scales != nil && !weight && (len(t.Shape) < 2 || t.Dtype == safetensors.I64):
		return nil
	}
	l := &Layer{Name: base, Layout: Other, Format: t.Dtype.String(), Dtype: t.Dtype.String(), Tensors: append([]checkpoint.Tensor{t}, scales...)}
	what := fmt.Sprintf("%s is %s %v, and nothing says what these codes stand for", t.Name, t.Dtype, t.Shape)
	if scales != nil {
		what = fmt.Sprintf("%s is %s %v beside %s: codes of a format that is not known", t.Name, t.Dtype, t.Shape, names(scales))
	}
	if d := m.Declared; d != nil && d.known {
		what = d.Method + ": " + what
	}
	l.Err = fmt.Errorf("%s: %s", what, startOver)
	return l
}

// halfOfBlocks reports whether a tensor is one of the two that MXFP4 has for experts,
// whose other one is not there.
func (m *Model) halfOfBlocks(t checkpoint.Tensor) bool {
	n := len(t.Shape)
	switch declared := m.Declared != nil && m.Declared.Method == "MXFP4"; {
	case t.Dtype != safetensors.U8 || n < 2:
		return false
	case strings.HasSuffix(t.Name, "_blocks"):
		return declared || n == 4 && t.Shape[3] == 16
	default:
		return declared && strings.HasSuffix(t.Name, "_scales")
	}
}

// calledWeight reports whether 8-bit integers are named like the weights that attention
// and fused experts hold as parameters of their own.
func calledWeight(t checkpoint.Tensor) bool {
	return (t.Dtype == safetensors.I8 || t.Dtype == safetensors.U8) && (strings.HasSuffix(t.Name, "_weight") || strings.HasSuffix(t.Name, "_proj"))
}

// scalesOf returns the tensors whose names consist of the name of the codes, or of
// their layer, and a word for a scale.
func (m *Model) scalesOf(codes checkpoint.Tensor, base string) (scales []checkpoint.Tensor) {
	for _, start := range []string{base + ".", base + "_"} {
		if base+"." == start && base == codes.Name {
			start = codes.Name + "."
		}
		for _, t := range m.Checkpoint.Under(start) {
			rest := strings.ToLower(t.Name[len(start):])
			far := strings.Contains(strings.TrimPrefix(rest, "weight."), ".")
			if t.Name == codes.Name || far || !slices.ContainsFunc(scaleWords, func(w string) bool { return strings.Contains(rest, w) }) {
				continue
			}
			if !strings.Contains(rest, "input_scale") && !strings.Contains(rest, "output_scale") && !strings.Contains(rest, "logit_scale") {
				scales = append(scales, t)
			}
		}
	}
	return scales
}
