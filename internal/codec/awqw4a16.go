package codec

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// awqW4A16 has 4-bit codes in groups, with scales and zeros in BF16. The
// references load it and cannot make it: its codes are SDNQ's uint4.
var awqW4A16 = &Format{
	Name: "awq_w4a16", Bits: 4, Storage: safetensors.I8, Max: 15, Unsigned: true, ComfyUI: "> 0.33.0",
	Takes: []string{"group-size", "full-precision-matmul", "search"}, Gains: true, Weighs: true, Refuse: refuseAWQ, make: newAWQ, Open: openAWQ, IgnoresInput: true,
	Kin: Kin{Dtype: "uint4"}, toSDNQ: awqToSDNQ, fromSDNQ: []origin{{"uint4", groupsOfUint4}},
}

func awqToSDNQ(metadata pyjson.Object, _ Codec) (Settings, error) {
	n, err := intOption(metadata, "group_size", awqGroup)
	return sdnqSettings("uint4", n), err
}

func groupsOfUint4(s *sdnq.Scheme) (Settings, bool) {
	group := s.GroupSize
	if group == -1 {
		group = s.Shape()[1]
	}
	return Settings{GroupSize: group}, group > 0 && s.Hadamard == 0 && !s.Transposed && s.Kind == sdnq.Linear
}

const awqGroup = 64

func refuseAWQ(s Settings) error {
	if group := orDefault(s.GroupSize, awqGroup); group < 2 || group%2 != 0 {
		return fmt.Errorf("awq_w4a16 has groups of an even number of values, not %d", group)
	}
	return nil
}

func newAWQ(src Source, s Settings) (Codec, pyjson.Object, error) {
	group := orDefault(s.GroupSize, awqGroup)
	c, err := newAWQIn(src, s, safetensors.BF16)
	return c, describeNative("awq_w4a16", s, pyjson.Member{Key: "group_size", Value: group}), err
}

// newAWQIn is newAWQ's codec with scales and zeros of another dtype.
func newAWQIn(src Source, s Settings, scales safetensors.Dtype) (Codec, error) {
	c, err := comfy.NewAWQ(src.Shape, orDefault(s.GroupSize, awqGroup), scales, s.AllowNonfinite)
	if err != nil {
		return nil, err
	}
	if s.Search {
		c.Search(rotation.Moments(src.Moments, 0))
	}
	return c, nil
}

func openAWQ(l *Stored) (Codec, error) {
	rows, bytes, err := l.codes()
	if err != nil {
		return nil, err
	}
	group, err := intOption(l.Metadata, "group_size", awqGroup)
	if err != nil {
		return nil, err
	}
	scales := l.Tensors[tile.Scale].Dtype
	if !Floats(scales) {
		return nil, fmt.Errorf("scale is %s, want BF16, F16 or F32", scales)
	}
	c, err := comfy.NewAWQ([]int{rows, 2 * bytes}, group, scales, false)
	return opened(c, err, l)
}
