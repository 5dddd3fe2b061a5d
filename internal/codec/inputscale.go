package codec

import (
	"encoding/binary"
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// withInputScale adds a scale of activations.
type withInputScale struct {
	Codec
	value float32
}

// WithInputScale adds a scale of activations to a codec that stores none.
func WithInputScale(c Codec, value float32) Codec { return withInputScale{c, value} }

func (c withInputScale) Tensors() []tile.Tensor {
	return append(c.Codec.Tensors(), tile.Tensor{Role: tile.InputScale, Dtype: safetensors.F32, Shape: []int{}})
}

func (c withInputScale) Written(i int, a tile.Area) []tile.Span {
	switch {
	case i < len(c.Codec.Tensors()):
		return c.Codec.Written(i, a)
	case a.Row == 0 && a.Col == 0:
		return tile.Run(0, 4)
	}
	return nil
}

func (c withInputScale) NewEncoder(from safetensors.Dtype, memory int) tile.Encoder {
	return oneMore{c.Codec.NewEncoder(from, memory), func(dst [][]byte) {
		if last := dst[len(dst)-1]; len(last) > 0 {
			binary.LittleEndian.PutUint32(last, math.Float32bits(c.value))
		}
	}}
}

// scaleAsInput stores the scales of the weight as those of activations too, as
// convert_to_quant's text presets do; where scales are codes, the codes as plain
// numbers.
type scaleAsInput struct {
	Codec
	from  int // index of the tensor that is copied
	dtype safetensors.Dtype
	shape []int
}

// newScaleAsInput leaves a codec that has a scale of activations as it is.
func newScaleAsInput(c Codec) Codec {
	from := -1
	for i, t := range c.Tensors() {
		switch t.Role {
		case tile.InputScale:
			return c
		case tile.Scale:
			from = i
		}
	}
	if from < 0 {
		return c
	}
	t := c.Tensors()[from]
	return scaleAsInput{c, from, t.Dtype, t.Shape}
}

func (c scaleAsInput) Tensors() []tile.Tensor {
	return append(c.Codec.Tensors(), tile.Tensor{Role: tile.InputScale, Dtype: safetensors.F32, Shape: c.shape})
}

func (c scaleAsInput) Written(i int, a tile.Area) []tile.Span {
	if i < len(c.Codec.Tensors()) {
		return c.Codec.Written(i, a)
	}
	width := int64(32 / c.dtype.Bits())
	var spans []tile.Span
	for _, s := range c.Codec.Written(c.from, a) {
		spans = append(spans, tile.Span{Offset: s.Offset * width, Size: s.Size * width, Count: s.Count, Stride: s.Stride * width})
	}
	return spans
}

func (c scaleAsInput) NewEncoder(from safetensors.Dtype, memory int) tile.Encoder {
	return oneMore{c.Codec.NewEncoder(from, memory), func(dst [][]byte) {
		last, from := dst[len(dst)-1], dst[c.from]
		if c.dtype == safetensors.F32 {
			copy(last, from)
			return
		}
		for i, code := range from {
			v := float32(code)
			if c.dtype == safetensors.F8_E4M3 {
				v = kernel.E4M3.Decode(uint16(code))
			}
			binary.LittleEndian.PutUint32(last[4*i:], math.Float32bits(v))
		}
	}}
}

// oneMore is an encoder with one more tensor, which fill computes from the others.
type oneMore struct {
	tile.Encoder
	fill func(dst [][]byte)
}

func (e oneMore) Encode(dst [][]byte, v tile.Values, s *tile.Scratch) error {
	err := e.Encoder.Encode(dst[:len(dst)-1], v, s)
	e.fill(dst)
	return err
}
