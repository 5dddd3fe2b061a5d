package codec

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// tileBytes is how many bytes an encoder may use for a tile of a weight in memory.
const tileBytes = 8 << 20

// EncodeAll encodes a weight in memory and returns a slice for each of the codec's
// tensors. The error is a *[tile.NonfiniteError], or one of a pass.
func EncodeAll(c Codec, w []float32) ([][]byte, error) { return encodeIn(tileBytes, c, w) }

// encodeIn is EncodeAll in tiles that take at most that many bytes of memory.
func encodeIn(memory int, c Codec, w []float32) ([][]byte, error) {
	stored := make([][]byte, len(c.Tensors()))
	for i, t := range c.Tensors() {
		n, err := safetensors.ByteSize(t.Dtype, t.Shape)
		if err != nil {
			return nil, err
		}
		stored[i] = make([]byte, n)
	}
	if b := Matrices(c); b != nil {
		size := len(w) / b.Len()
		for i := range b.Len() {
			if err := encodeInto(stored, memory, b.Matrix(i), w[i*size:(i+1)*size]); err != nil {
				return stored, err
			}
		}
		return stored, nil
	}
	return stored, encodeInto(stored, memory, c, w)
}

func encodeInto(stored [][]byte, memory int, c Codec, w []float32) error {
	cut := c.Cut()
	all := tile.ValuesOf(tile.Area{Rows: cut.Rows, Cols: cut.Cols}, w)
	return tile.EncodeAll(c.NewEncoder(safetensors.F32, memory), cut, c.Written, all, stored, new(tile.Scratch))
}

// DecodeAll restores a weight from a slice for each of the codec's tensors, as for a
// model of dtype out: F32, BF16 or F16. The error is for a slice of the wrong size.
func DecodeAll(c Codec, stored [][]byte, out safetensors.Dtype) ([]float32, error) {
	for i, t := range c.Tensors() {
		if n, err := safetensors.ByteSize(t.Dtype, t.Shape); err != nil || int64(len(stored[i])) != n {
			return nil, fmt.Errorf("%s has %d bytes, want %d", t.Role, len(stored[i]), n)
		}
	}
	cut, s := c.Cut().ForDecoding(), new(tile.Scratch)
	w := make([]float32, tile.Numel(c.Shape()))
	for _, a := range cut.Areas(cut.DecodeTile(tile.TileSize)) {
		src := make([][]byte, len(stored))
		for i := range src {
			for _, span := range c.Needed(i, a) {
				src[i] = append(src[i], span.Take(stored[i])...)
			}
		}
		part := make([]float32, a.Values())
		c.Decode(part, src, a, out, s)
		for row := range a.Rows {
			copy(w[(a.Row+row)*cut.Cols+a.Col:], part[row*a.Cols:(row+1)*a.Cols])
		}
	}
	return w, nil
}
