package layout

import (
	"testing"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestKindsTellApart: layers that share a codec must be stored alike, or one is
// decoded with the other's shape.
func TestKindsTellApart(t *testing.T) {
	tensor := func(d safetensors.Dtype, shape ...int) quant.Tensor { return quant.Tensor{Dtype: d, Shape: shape} }
	stored := func(hint []int, roles ...any) *codec.Stored {
		s := &codec.Stored{Hint: hint, Tensors: map[quant.Role]quant.Tensor{}}
		for i := 0; i < len(roles); i += 2 {
			s.Tensors[roles[i].(quant.Role)] = roles[i+1].(quant.Tensor)
		}
		return s
	}
	weight := tensor(safetensors.I8, 4, 8)
	all := []*codec.Stored{
		stored(nil),
		stored(nil, quant.Weight, weight),
		stored([]int{4}, quant.Weight, weight),
		stored([]int{4, 8}, quant.Weight, weight),
		stored(nil, quant.Weight, tensor(safetensors.U8, 4, 8)),
		stored(nil, quant.Weight, tensor(safetensors.I8, 8, 4)),
		stored(nil, quant.Weight, tensor(safetensors.I8, 4, 8, 1)),
		stored(nil, quant.Weight, tensor(safetensors.I8, 32)),
		stored(nil, quant.Scale, weight),
		stored(nil, quant.Weight, weight, quant.Scale, tensor(safetensors.F32, 4)),
		stored(nil, quant.Weight, weight, quant.Scale, tensor(safetensors.BF16, 4)),
		stored(nil, quant.Weight, weight, quant.Scale2, tensor(safetensors.F32, 4)),
		stored(nil, quant.Weight, weight, quant.Scale, tensor(safetensors.F32, 4), quant.Scale2, tensor(safetensors.F32)),
	}
	seen := map[string]int{}
	for i, s := range all {
		key := storedKey(s)
		if j, ok := seen[key]; ok {
			t.Errorf("%+v and %+v are taken for the same", all[j], s)
		}
		if seen[key] = i; key != storedKey(s) {
			t.Errorf("%+v is not taken for itself", s)
		}
	}
	for _, l := range []*Layout{SDNQ, Comfy, ScaledFP8, ScaleInv, WeightScale} {
		for role := range l.suffixes {
			if _, ok := Comfy.suffixes[role]; !ok {
				t.Errorf("%s of %s does not count", role, l.Name)
			}
		}
	}
}
