package ctq

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// convertFP8 is --convert-fp8-scaled.
func (r *rewriting) convertFP8() error {
	if err := r.needsMarker(); err != nil {
		return err
	}
	r.drop(marker)
	layers := pyjson.Object{}
	for _, base := range r.bases(".weight", ".scale_weight", ".scale_input") {
		w, ok := r.weight(base)
		switch {
		case !ok:
			continue
		case w.Dtype != safetensors.F8_E4M3:
			r.drop(base+".scale_weight", base+".scale_input")
			continue
		}
		if err := r.keepsPrecision(base); err != nil {
			return err
		}
		o := r.float8Format(base, w)
		r.rename(base+".scale_weight", base+".weight_scale")
		if !r.rename(base+".scale_input", base+".input_scale") && r.Has("input_scale") && !r.has(base+".input_scale") {
			r.one(base + ".input_scale")
		}
		layers = append(layers, pyjson.Member{Key: base, Value: o})
		if _, err := r.replaceDescription(base, o); err != nil {
			return err
		}
	}
	r.header(layers)
	return nil
}

// keepsPrecision stops the run where --hp-filter names a float8 layer.
func (r *rewriting) keepsPrecision(base string) error {
	if !r.Has("hp_filter") {
		return nil
	}
	p, err := pattern.Compile(r.Text("hp_filter"))
	if err != nil {
		return usage.Wrap(err)
	}
	found, err := p.Match(base)
	if found {
		return fmt.Errorf("--hp-filter %v matches %s, which is float8 already", p, base)
	}
	return err
}

// replaceDescription writes a layer's JSON: what it had, flattened, before o.
func (r *rewriting) replaceDescription(base string, o pyjson.Object) (pyjson.Object, error) {
	old, err := r.described(base)
	if err != nil {
		return nil, err
	}
	if old != nil {
		o = flattened(old)
	}
	r.describe(base, o)
	return o, nil
}

// flattened moves nested parameters up, where a key is not there already.
func flattened(o pyjson.Object) pyjson.Object {
	v, ok := o.Get("params")
	if !ok {
		return o
	}
	o = o.Delete("params")
	params, _ := v.(pyjson.Object)
	for _, m := range params {
		if _, taken := o.Get(m.Key); !taken || m.Key == "group_size" {
			o = o.Set(m.Key, m.Value)
		}
	}
	return o
}

// float8Format tells a layer's format by the shape of its scale.
func (r *rewriting) float8Format(base string, w checkpoint.Tensor) pyjson.Object {
	format, group := "float8_e4m3fn", 0
	if s, ok := r.source.Lookup(base + ".scale_weight"); ok && len(w.Shape) == 2 {
		format, group = float8By(w.Shape[0], w.Shape[1], s.Shape)
	}
	o := pyjson.Object{{Key: "format", Value: format}}
	if group > 0 {
		o = append(o, pyjson.Member{Key: "group_size", Value: group})
	}
	if r.Has("full_precision_mm") {
		o = append(o, pyjson.Member{Key: "full_precision_matrix_mult", Value: true})
	}
	return o
}

func float8By(rows, cols int, scale []int) (format string, group int) {
	n := 1
	for _, d := range scale {
		n *= d
	}
	switch {
	case n <= 1:
	case len(scale) == 1 && n == rows:
		return "float8_e4m3fn_rowwise", 0
	case len(scale) == 1:
		if side := squareRoot(rows * cols / n); rows*cols%n == 0 && side > 0 && rows%side == 0 && cols%side == 0 {
			return "float8_e4m3fn_blockwise", side
		}
	case len(scale) == 2 && rows%scale[0] == 0 && cols%scale[1] == 0:
		return "float8_e4m3fn_blockwise", min(rows/scale[0], cols/scale[1])
	case len(scale) == 3 && scale[0] == rows && scale[2] == 1 && scale[1] > 0 && cols%scale[1] == 0:
		return "float8_e4m3fn_block3d", 0
	}
	return "float8_e4m3fn", 0
}

// squareRoot is exact, else 0.
func squareRoot(n int) int {
	for side := 1; side*side <= n; side++ {
		if side*side == n {
			return side
		}
	}
	return 0
}

// convertInt8 is --convert-int8-scaled.
func (r *rewriting) convertInt8() error {
	r.drop(marker, "scaled_int8")
	layers := pyjson.Object{}
	for _, base := range r.bases(".weight") {
		w, _ := r.weight(base)
		if w.Dtype != safetensors.I8 || len(w.Shape) != 2 {
			continue
		}
		r.rename(base+".scale_weight", base+".weight_scale")
		if !r.rename(base+".scale_input", base+".input_scale") && r.Has("input_scale") && !r.has(base+".input_scale") {
			r.one(base + ".input_scale")
		}
		scale := r.edits[base+".weight_scale"]
		o, err := r.replaceDescription(base, r.int8Format(w, scale.As.Shape))
		if err != nil {
			return err
		}
		layers = append(layers, pyjson.Member{Key: base, Value: o})
	}
	if r.Has("save_quant_metadata") {
		r.header(layers)
	}
	return nil
}

// int8Format takes a scale for each of the columns for one a row, as
// convert_to_quant does; tensorpress migrate takes that of the rows.
func (r *rewriting) int8Format(w checkpoint.Tensor, scale []int) pyjson.Object {
	rows, cols := w.Shape[0], w.Shape[1]
	switch {
	case len(scale) == 2 && scale[0] == cols && scale[1] == 1, len(scale) == 1 && scale[0] == cols:
		return pyjson.Object{{Key: "format", Value: "int8_tensorwise"}}
	case len(scale) == 2 && scale[0] > 0 && scale[1] > 0 && rows%scale[0] == 0 && cols%scale[1] == 0:
		return int8Blocks(min(rows/scale[0], cols/scale[1]))
	}
	if n := r.Int("block_size"); n > 0 {
		return int8Blocks(n)
	}
	return int8Blocks(128)
}

func int8Blocks(group int) pyjson.Object {
	return pyjson.Object{{Key: "format", Value: "int8_blockwise"}, {Key: "group_size", Value: group}}
}
