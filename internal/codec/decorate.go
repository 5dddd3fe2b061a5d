package codec

import (
	"encoding/binary"
	"fmt"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

func shapeError(shape []int) error {
	return fmt.Errorf("weight has shape %v, want two dimensions", shape)
}

func ones(dst []byte) {
	for i := 0; i < len(dst); i += 4 {
		binary.LittleEndian.PutUint32(dst[i:], 0x3F800000)
	}
}

// exactZero gives a weight of zeros alone scales of 1, as convert_to_quant does, in
// formats whose zero rows or blocks have other scales.
type exactZero struct{ Codec }

func (c exactZero) NewEncoder(from safetensors.Dtype, memory int) tile.Encoder {
	return &zeroEncoder{Encoder: c.Codec.NewEncoder(from, memory), codec: c.Codec}
}

type zeroEncoder struct {
	tile.Encoder
	codec Codec
	zero  bool // all codes are 0 and all scales 1
}

func (e *zeroEncoder) Needs() tile.Needs {
	n := e.Encoder.Needs()
	survey := n.Survey
	n.Survey = func(read tile.Reader) (err error) {
		if e.zero, err = allZero(read, tile.Numel(e.codec.Shape())); err != nil || survey == nil {
			return err
		}
		return survey(read)
	}
	return n
}

func (e *zeroEncoder) Encode(dst [][]byte, v tile.Values, s *tile.Scratch) error {
	if !e.zero {
		return e.Encoder.Encode(dst, v, s)
	}
	for i, t := range e.codec.Tensors() {
		clear(dst[i])
		if t.Dtype == safetensors.F32 {
			ones(dst[i])
		}
	}
	return nil
}

// allZero reads up to the first value that is not zero.
func allZero(read tile.Reader, values int) (bool, error) {
	buffer := make([]float32, 4096)
	for start := 0; start < values; start += len(buffer) {
		x := buffer[:min(len(buffer), values-start)]
		if err := read(start, x); err != nil {
			return false, err
		}
		for _, v := range x {
			if v != 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

// finish wraps a codec in what its settings add to it.
func finish(c Codec, s Settings, inputScale bool) Codec {
	if inputScale {
		c = withInputScale{c, 1}
	}
	if s.ExactReference {
		c = exactZero{c}
	}
	return c
}
