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
func EncodeAll(c Codec, w []float32) ([][]byte, error) {
	stored := make([][]byte, len(c.Tensors()))
	for i, t := range c.Tensors() {
		n, err := safetensors.ByteSize(t.Dtype, t.Shape)
		if err != nil {
			return nil, err
		}
		stored[i] = make([]byte, n)
	}
	e, cut, s := c.NewEncoder(safetensors.F32, tileBytes), c.Cut(), new(tile.Scratch)
	if survey := e.Needs().Survey; survey != nil {
		if err := survey(func(start int, dst []float32) error { copy(dst, w[start:]); return nil }); err != nil {
			return nil, err
		}
	}
	read := func(a tile.Area) (tile.Values, error) { return tile.ValuesOf(a, cutOut(w, a, cut.Cols)), nil }
	return stored, tile.Drive(e, cut, read, func(v tile.Values) error {
		dst := make([][]byte, len(stored))
		for i := range dst {
			dst[i] = make([]byte, tile.SpanBytes(c.Written(i, v.Area)))
		}
		if err := e.Encode(dst, v, s); err != nil {
			return err
		}
		for i, part := range dst {
			for _, span := range c.Written(i, v.Area) {
				span.Put(stored[i], part)
				part = part[span.Bytes():]
			}
		}
		return nil
	}, s)
}

// cutOut copies the values of an area of a weight of that many columns.
func cutOut(w []float32, a tile.Area, columns int) []float32 {
	out := make([]float32, 0, a.Values())
	for row := range a.Rows {
		at := (a.Row+row)*columns + a.Col
		out = append(out, w[at:at+a.Cols]...)
	}
	return out
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
	w := make([]float32, numel(c.Shape()))
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
