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
	values := make([]float32, tile.Numel(shape))
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
	stored, err := encodeIn(wideBytes*limit, c, values)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// restored decodes a whole layer in areas of about want values.
func restored(t testing.TB, c Codec, stored [][]byte, want int, out safetensors.Dtype) []float32 {
	t.Helper()
	cut, s := c.Cut().ForDecoding(), new(tile.Scratch)
	values := make([]float32, tile.Numel(c.Shape()))
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
