// Package quant quantizes and restores a single weight in memory, in any format of
// either layout: SDNQ's dtypes and ComfyUI's formats, with exactly the bytes that files
// have. [Quantize] and [Dequantize] do all of it; [Pack] and [Unpack] only lay codes
// into bytes. Package dtype lists SDNQ's dtypes; package tensorpress converts whole
// checkpoints.
package quant

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// Quantized is a weight as it is stored.
type Quantized struct {
	// Metadata is the JSON that describes the layer in the comfy layout: its format,
	// and what the tensors do not tell by themselves.
	Metadata json.RawMessage
	// Tensors are the codes, which come first, and the companions that restore values
	// from them.
	Tensors []Tensor
}

// Tensor is one of the stored tensors.
type Tensor struct {
	// Role is "weight" for the codes, or SDNQ's name of a companion: "scale",
	// "zero_point", "svd_up", and so on.
	Role  string
	Dtype safetensors.Dtype
	Shape []int
	Data  []byte // little-endian
}

// NonfiniteError is the error for a value that is NaN or infinite, unless
// [storage.Settings.AllowNonfinite] is set.
type NonfiniteError = tile.NonfiniteError

// Quantize stores a weight of that shape, which has two dimensions and whose values are given in row-major order.
// Names of dtypes are those of the comfy layout: "float8_e4m3fn" is ComfyUI's,
// "sdnq:float8_e4m3fn" SDNQ's; the default is int8_tensorwise. The error says why the
// settings cannot store the weight; for a value that is not finite it is a
// *[NonfiniteError].
func Quantize(w []float32, shape []int, s storage.Settings) (*Quantized, error) {
	if len(shape) != 2 {
		return nil, fmt.Errorf("shape %v, want two dimensions", shape)
	}
	if values := shape[0] * shape[1]; values != len(w) {
		return nil, fmt.Errorf("%d values for shape %v, want %d", len(w), shape, values)
	}
	all := codec.Default().With(s)
	if all.Dtype == "" {
		all.Dtype = "int8_tensorwise"
	}
	f, err := codec.Resolve(all.Dtype, false)
	if err != nil {
		return nil, err
	}
	c, metadata, err := f.Scaled(all.Scale).Make(codec.Source{Shape: shape, Dtype: safetensors.F32}, all)
	if err != nil {
		return nil, err
	}
	stored, err := codec.EncodeAll(c, w)
	if err != nil {
		return nil, err
	}
	q := &Quantized{Metadata: json.RawMessage(pyjson.Dump(metadata))}
	for i, t := range c.Tensors() {
		q.Tensors = append(q.Tensors, Tensor{string(t.Role), t.Dtype, t.Shape, stored[i]})
	}
	return q, nil
}

// Dequantize restores the values of a weight as float32, in row-major order. Formats
// that are padded to whole blocks, nvfp4 and mxfp8, do not say what shape they had: of
// them it is the padded weight.
func Dequantize(q *Quantized) ([]float32, error) {
	metadata, err := pyjson.ParseObject(q.Metadata)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	name, _ := metadata.Get("format")
	text, ok := name.(string)
	if !ok {
		return nil, errors.New("metadata: no format")
	}
	f, err := codec.ByName(text)
	if err != nil {
		return nil, err
	}
	l, data := &codec.Stored{Metadata: metadata, Tensors: map[tile.Role]tile.Tensor{}}, map[tile.Role][]byte{}
	for _, t := range q.Tensors {
		role := tile.Role(t.Role)
		l.Tensors[role], data[role] = tile.Tensor{Role: role, Dtype: t.Dtype, Shape: t.Shape}, t.Data
	}
	c, err := f.Open(l)
	if err != nil {
		return nil, err
	}
	var stored [][]byte
	for _, t := range c.Tensors() {
		stored = append(stored, data[t.Role])
	}
	return codec.DecodeAll(c, stored, safetensors.F32)
}

// Pack lays codes of that many bits, 1 to 16, side by side in SDNQ's bit order. The
// number of codes must be a multiple of [PackedTogether].
func Pack(codes []uint16, bits int) []byte {
	packed := make([]byte, pack.Size(len(codes), bits))
	pack.Pack(packed, codes, bits)
	return packed
}

// Unpack is the inverse of [Pack]: it returns the n codes of that many bits.
func Unpack(packed []byte, n, bits int) []uint16 {
	codes := make([]uint16, n)
	pack.Unpack(codes, packed, bits)
	return codes
}

// PackedTogether returns how many codes of that many bits fill whole storage words.
func PackedTogether(bits int) int { return pack.Values(bits) }
