package layout

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// packedInts are the names of GPTQ's and AWQ's tensors.
var packedInts = map[tile.Role]string{
	tile.Weight: ".qweight", tile.Scale: ".scales", tile.Zeros: ".qzeros", tile.GroupOfColumn: ".g_idx",
}

// widths are the keys of numbers that a config of either has.
var widths = []string{"bits", "w_bit", "group_size", "q_group_size"}

const (
	gptqName = "GPTQ"
	awqName  = "AWQ"
)

// gptq is the format of AutoGPTQ, GPTQModel and those who pack as they do.
var gptq = &publication{
	Layout: &Layout{Name: "gptq", suffixes: packedInts}, is: gptqName,
	dtypes: words, tells: []tile.Role{tile.Zeros, tile.GroupOfColumn}, methods: []string{gptqName},
	when: func(m *Model, codes checkpoint.Tensor, name string) bool {
		return !m.packsColumns(codes, name) && !m.unusual(name)
	},
	open: openGPTQ,
}

// awq is the format of AutoAWQ in its gemm version.
var awq = &publication{
	Layout: &Layout{Name: "awq", suffixes: packedInts}, is: awqName,
	dtypes: words, tells: []tile.Role{tile.Zeros}, methods: []string{awqName},
	when: func(m *Model, codes checkpoint.Tensor, name string) bool {
		return m.packsColumns(codes, name) && !m.unusual(name)
	},
	open: openAWQ,
}

// packsColumns tells AWQ's codes from GPTQ's by their scales. What only GPTQ has tells too.
func (m *Model) packsColumns(codes checkpoint.Tensor, name string) bool {
	scales, ok := m.Checkpoint.Lookup(name + packedInts[tile.Scale])
	_, ordered := m.Checkpoint.Lookup(name + packedInts[tile.GroupOfColumn])
	return ok && !ordered && packedByColumns(codes, scales)
}

// unusual reports whether a layer has tensors of other programs, which pack alike and
// mean something else.
func (m *Model) unusual(name string) bool {
	_, ok := m.anyOf(name, append([]string{".forward_hadamard_matrix", ".weight_global_scale", ".qscales"}, nunchaku...))
	return ok
}

// gptqFormats are the known values of checkpoint_format, and whether zero points are one
// less than they are there.
var gptqFormats = map[string]bool{"gptq": true, "gptq_v2": false}

func openGPTQ(m *Model, t published.Tensors, _ pyjson.Object) (published.Weight, string, pyjson.Object, error) {
	o := m.config()
	if o == nil || m.Declared.Method != gptqName {
		return nil, "", nil, errors.New("no config says whether zero points are stored one less than they are: put the model's config.json or quantize_config.json beside the weights")
	}
	if err := wholeOnes("its config", o, widths...); err != nil {
		return nil, "", nil, err
	}
	g := published.GPTQ{Bits: number(o, "bits", "w_bit"), Group: number(o, "group_size", "q_group_size"), Ordered: flag(o, "desc_act")}
	if _, ok := o.Get("dynamic"); ok { // bits and groups of some layers are others
		g.Bits, g.Group, g.Ordered = 0, 0, nil
	} else if sym := flag(o, "sym"); sym != nil {
		g.Symmetric = *sym
	}
	format := "gptq"
	for _, key := range []string{"checkpoint_format", "format"} {
		if v, _ := o.Get(key); v != nil {
			format = strings.ToLower(fmt.Sprint(v))
			break
		}
	}
	less, known := gptqFormats[format]
	if !known {
		return nil, "", nil, fmt.Errorf("its config says checkpoint_format %s, and gptq and gptq_v2 are read", format)
	}
	if marlin := flag(o, "is_marlin_format"); marlin != nil && *marlin {
		return nil, "", nil, errors.New("its config says is_marlin_format")
	}
	g.ZeroLess = less
	w, err := published.NewGPTQ(t, g)
	if err != nil {
		return nil, "", nil, err
	}
	dtype, options := wholeNumbers(w)
	return w, dtype, append(options, pyjson.Member{Key: "checkpoint_format", Value: format}), nil
}

func openAWQ(m *Model, t published.Tensors, _ pyjson.Object) (published.Weight, string, pyjson.Object, error) {
	o := m.config()
	if v, _ := o.Get("version"); v != nil && !strings.EqualFold(fmt.Sprint(v), "gemm") {
		return nil, "", nil, fmt.Errorf("its config says version %v, and gemm is read", v)
	}
	if zeros := flag(o, "zero_point"); zeros != nil && !*zeros {
		return nil, "", nil, errors.New("its config says zero_point false, and there are qzeros")
	}
	if err := wholeOnes("its config", o, widths...); err != nil {
		return nil, "", nil, err
	}
	w, err := published.NewAWQ(t, published.AWQ{Bits: number(o, "bits", "w_bit"), Group: number(o, "group_size", "q_group_size")})
	if err != nil {
		return nil, "", nil, err
	}
	dtype, options := wholeNumbers(w)
	return w, dtype, options, nil
}
