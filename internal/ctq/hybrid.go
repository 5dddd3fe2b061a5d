package ctq

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/safetensors"
)

// makeHybrid is --make-hybrid-mxfp8.
func (r *rewriting) makeHybrid() error {
	header, err := r.headerLayers()
	if err != nil {
		return err
	}
	given, err := r.openScales()
	if err != nil {
		return err
	}
	if given != nil {
		defer given.Close()
	}
	for _, base := range r.bases(description) {
		o, err := r.described(base)
		if err != nil {
			return err
		}
		scale, ok := r.source.Lookup(base + ".weight_scale")
		if format, _ := o.Get("format"); format != "mxfp8" || !ok {
			continue
		}
		scalar, err := r.scalar(base, scale, given)
		if err != nil {
			return err
		}
		data := binary.LittleEndian.AppendUint32(nil, math.Float32bits(scalar))
		r.put(plan.Edit{As: safetensors.Tensor{Name: base + ".weight_scalar", Dtype: safetensors.F32, Shape: []int{}}, Data: data})
		r.describe(base, o.Set("format", "hybrid_mxfp8"))
		if v, ok := header.Get(base); ok {
			entry, _ := v.(pyjson.Object)
			header = header.Set(base, entry.Set("format", "hybrid_mxfp8"))
		}
	}
	if header != nil {
		r.header(header)
	}
	if r.metadata == nil {
		r.metadata = map[string]string{}
	}
	return nil
}

// openScales opens the file that has scales of whole tensors, nil for none.
func (r *rewriting) openScales() (*checkpoint.Checkpoint, error) {
	if !r.Has("tensor_scales") {
		return nil, nil
	}
	return checkpoint.Open(source.Path(r.Text("tensor_scales")))
}

// scalar is the scale that the file gives for a layer, else the greatest of its
// blocks, else 1.
func (r *rewriting) scalar(base string, scale checkpoint.Tensor, given *checkpoint.Checkpoint) (float32, error) {
	if given != nil {
		if t, ok := given.Lookup(base + ".weight_scale"); ok && codec.Floats(t.Dtype) && t.Size > 0 {
			return greatest(given, t)
		}
	}
	raw, err := readSmall(r.source, scale)
	if err != nil {
		return 0, err
	}
	most := byte(0)
	for _, e := range raw {
		most = max(most, e)
	}
	if most == 0 {
		return 1, nil
	}
	return math.Float32frombits(uint32(most) << 23), nil
}

func greatest(c *checkpoint.Checkpoint, t checkpoint.Tensor) (float32, error) {
	raw, err := readSmall(c, t)
	if err != nil {
		return 0, err
	}
	values := make([]float32, t.Numel())
	codec.Widen(values, raw, t.Dtype)
	most := values[0]
	for _, v := range values {
		most = max(most, v)
	}
	return most, nil
}

// mostScales bounds what is read of one layer's scales.
const mostScales = 64 << 20

func readSmall(c *checkpoint.Checkpoint, t checkpoint.Tensor) ([]byte, error) {
	if t.Size > mostScales {
		return nil, fmt.Errorf("%s: tensor %s has %d bytes of scales, more than %d", c.File(t), t.Name, t.Size, mostScales)
	}
	raw := make([]byte, t.Size)
	return raw, c.ReadSection(t, raw, 0)
}
