package plan

import (
	"fmt"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Unmeasured reports whether a layer's dtype is yet to be chosen by its loss.
func (s *Step) Unmeasured() bool {
	return s.Action == Quantize && s.Settings.Dynamic && s.Format == codec.SDNQ()
}

// described is how many bytes the JSON of a layer may be longer in one dtype than in another.
const described = 256

// Bounds are those of layers that were asked for: models repeat a few kinds many times.
type Bounds map[bounded]bounds

type bounded struct {
	*codec.Settings
	dtype safetensors.Dtype
	shape string
	name  int // its length
}

type bounds struct{ most, more int64 }

// Of is what a layer takes at most, whichever dtype is chosen, or if none is and it is
// kept; more is how much that is more than the plan counts, headers included.
func (all Bounds) Of(s *Step) (most, more int64) {
	key := bounded{s.Settings, s.Source.Dtype, fmt.Sprint(s.Source.Shape), len(s.Source.Name)}
	b, ok := all[key]
	if !ok {
		b.most, b.more = s.atMost()
		all[key] = b
	}
	return b.most, b.more
}

func (s *Step) atMost() (most, more int64) {
	const digits = 20
	size := func(tensors []safetensors.Tensor) (body, all int64) {
		for _, t := range tensors {
			body, all = body+t.Size, all+t.Size+entryBytes(t, digits)
		}
		return body, all
	}
	var planned []safetensors.Tensor
	for _, part := range s.Parts {
		planned = append(planned, part.Tensor)
	}
	_, counted := size(planned)
	numel, _ := safetensors.ByteSize(s.CodecSource().Dtype, s.Source.Shape)
	most, all := size([]safetensors.Tensor{{Name: s.Source.Name, Dtype: s.Source.Dtype, Shape: s.Source.Shape, Size: numel}})
	given, from := *s.Settings, dtype.Lookup(s.Settings.PlainDtype())
	product := dtype.Lookup(given.QuantizedMatmulDtype)
	for _, d := range sdnq.DynamicOrder(from, given.Codebook) {
		on, _ := sdnq.DynamicMatmul(from, d, product, given.QuantizedMatmul)
		trial := given
		trial.Dtype, trial.QuantizedMatmul, trial.QuantizedMatmulConv = d.Name, on && given.QuantizedMatmul, on && given.QuantizedMatmulConv
		c, _, err := s.Format.Make(s.CodecSource(), trial)
		if err != nil {
			continue // it is not chosen
		}
		var tensors []safetensors.Tensor
		for _, t := range c.Tensors() {
			n, _ := safetensors.ByteSize(t.Dtype, t.Shape)
			tensors = append(tensors, safetensors.Tensor{Name: s.Source.Name + ".zero_point_scale", Dtype: t.Dtype, Shape: t.Shape, Size: n})
		}
		body, whole := size(tensors)
		most, all = max(most, body), max(all, whole)
	}
	return most, max(all-counted, 0) + described
}
