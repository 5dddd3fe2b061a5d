package codec

import (
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// bell are values as weights have them, the same for a shape.
func bell(shape []int) []float32 {
	r := rand.New(rand.NewPCG(uint64(len(shape)), 7))
	values := make([]float32, numel(shape))
	for i := range values {
		values[i] = float32(r.NormFloat64() * 0.02)
	}
	return values
}

// wideBytes is about what a tile takes for a value.
const wideBytes = 32

// encoded drives an encoder over a weight in memory, in areas of at most limit
// values, and returns what it stores.
func encoded(t testing.TB, c Codec, values []float32, limit int) [][]byte {
	t.Helper()
	stored := make([][]byte, len(c.Tensors()))
	for i, tensor := range c.Tensors() {
		n, err := safetensors.ByteSize(tensor.Dtype, tensor.Shape)
		if err != nil {
			t.Fatal(err)
		}
		stored[i] = make([]byte, n)
	}
	e, cut, s := c.NewEncoder(safetensors.F32, wideBytes*limit), c.Cut(), new(tile.Scratch)
	if survey := e.Needs().Survey; survey != nil {
		if err := survey(func(start int, dst []float32) error { copy(dst, values[start:]); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	read := func(a tile.Area) (tile.Values, error) { return tile.ValuesOf(a, cutOut(values, a, cut.Cols)), nil }
	err := tile.Drive(e, cut, read, func(v tile.Values) error {
		dst := make([][]byte, len(stored))
		for i := range dst {
			dst[i] = make([]byte, tile.SpanBytes(c.Written(i, v.Area)))
		}
		if err := e.Encode(dst, v, s); err != nil {
			return err
		}
		for i := range dst {
			left := dst[i]
			eachRun(c.Written(i, v.Area), func(from, to int64) { left = left[copy(stored[i][from:to], left):] })
		}
		return nil
	}, s)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// restored decodes a whole layer in areas of about want values.
func restored(t testing.TB, c Codec, stored [][]byte, want int, out safetensors.Dtype) []float32 {
	t.Helper()
	cut, s := c.Cut().ForDecoding(), new(tile.Scratch)
	values := make([]float32, numel(c.Shape()))
	for _, a := range cut.Areas(cut.DecodeTile(want)) {
		src := make([][]byte, len(stored))
		for i, tensor := range c.Tensors()[:len(src)] {
			if tensor.Role == tile.InputScale { // no weight needs it
				continue
			}
			eachRun(c.Needed(i, a), func(from, to int64) { src[i] = append(src[i], stored[i][from:to]...) })
		}
		part := make([]float32, a.Values())
		c.Decode(part, src, a, out, s)
		for i, v := range part {
			values[a.Index(i, cut.Cols)] = v
		}
	}
	return values
}

// relMSE is the error of values relative to those they should be.
func relMSE(got, want []float32) float64 {
	var loss, all float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		loss += d * d
		all += float64(w) * float64(w)
	}
	return loss / all
}
