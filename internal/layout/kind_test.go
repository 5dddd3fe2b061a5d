package layout

import (
	"testing"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestKindsTellApart: layers that share a codec must be stored alike, or one is
// decoded with the other's shape.
func TestKindsTellApart(t *testing.T) {
	tensor := func(d safetensors.Dtype, shape ...int) tile.Tensor { return tile.Tensor{Dtype: d, Shape: shape} }
	stored := func(hint []int, roles ...any) *codec.Stored {
		s := &codec.Stored{Hint: hint, Tensors: map[tile.Role]tile.Tensor{}}
		for i := 0; i < len(roles); i += 2 {
			s.Tensors[roles[i].(tile.Role)] = roles[i+1].(tile.Tensor)
		}
		return s
	}
	weight := tensor(safetensors.I8, 4, 8)
	all := []*codec.Stored{
		stored(nil),
		stored(nil, tile.Weight, weight),
		stored([]int{4}, tile.Weight, weight),
		stored([]int{4, 8}, tile.Weight, weight),
		stored(nil, tile.Weight, tensor(safetensors.U8, 4, 8)),
		stored(nil, tile.Weight, tensor(safetensors.I8, 8, 4)),
		stored(nil, tile.Weight, tensor(safetensors.I8, 4, 8, 1)),
		stored(nil, tile.Weight, tensor(safetensors.I8, 32)),
		stored(nil, tile.Scale, weight),
		stored(nil, tile.Weight, weight, tile.Scale, tensor(safetensors.F32, 4)),
		stored(nil, tile.Weight, weight, tile.Scale, tensor(safetensors.BF16, 4)),
		stored(nil, tile.Weight, weight, tile.Scale2, tensor(safetensors.F32, 4)),
		stored(nil, tile.Weight, weight, tile.Scale, tensor(safetensors.F32, 4), tile.Scale2, tensor(safetensors.F32)),
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
