package comfy

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// tails are values of which some are far larger than most.
func tails(n int) []float32 {
	r := rand.New(rand.NewPCG(8, 15))
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(r.NormFloat64() * math.Exp(0.5*r.NormFloat64()))
	}
	return w
}

// TestNVFP4NearTheLeast: the scales that are found for blocks are nearly as good as the
// best of all, and no worse than the plain ones.
func TestNVFP4NearTheLeast(t *testing.T) {
	t.Parallel()
	shape := []int{32, 256}
	w := tails(shape[0] * shape[1])
	var data [2][][]byte
	for i := range data {
		n, err := NewNVFP4(shape, BlockOptions{Search: i == 1})
		if err != nil {
			t.Fatal(err)
		}
		_, data[i] = press(t, n, w)
	}
	tensor := float64(math.Float32frombits(uint32(data[1][2][0]) | uint32(data[1][2][1])<<8 | uint32(data[1][2][2])<<16 | uint32(data[1][2][3])<<24))
	scales := make([][]byte, 2)
	for i := range data {
		scales[i] = make([]byte, shape[0]*shape[1]/16)
		getScales(scales[i], data[i][1], 0, shape[1]/16)
	}
	var plain, found, least float64
	for i := range scales[0] {
		block := w[16*i : 16*i+16]
		was, is, best := missOfFours(block, scales[0][i], tensor), missOfFours(block, scales[1][i], tensor), math.Inf(1)
		for code := range 0x7F {
			best = min(best, missOfFours(block, byte(code), tensor))
		}
		if is > was*(1+1e-6) {
			t.Errorf("block %d: error %g, was %g", i, is, was)
		}
		plain, found, least = plain+was, found+is, least+best
	}
	if found > 1.002*least || found > 0.82*plain {
		t.Errorf("the error is %.4f of the least and %.4f of the plain one", found/least, found/plain)
	}
}

// missOfFours is the error of a block that is encoded with that code of a scale.
func missOfFours(block []float32, code byte, tensor float64) (sum float64) {
	scale := float64(kernel.E4M3.Decode(uint16(code))) * tensor
	for _, v := range block {
		near := math.Inf(1)
		for c := range uint16(16) {
			near = min(near, math.Abs(float64(v)-float64(kernel.E2M1.Decode(c))*scale))
		}
		sum += near * near
	}
	return sum
}

// TestFloat8RowsNearTheLeast: the scales that are found for rows are nearly as good as
// the best of a thousand to an octave, and no worse than the plain ones.
func TestFloat8RowsNearTheLeast(t *testing.T) {
	t.Parallel()
	shape := []int{48, 320}
	w := tails(shape[0] * shape[1])
	restored := func(search bool) []float32 {
		s, err := NewGrouped(shape, E4M3Group, shape[1], shape[:1], false)
		if err != nil {
			t.Fatal(err)
		}
		if search {
			s.Search(nil)
		}
		data := [][]byte{make([]byte, len(w)), make([]byte, 4*shape[0])}
		v := tile.ValuesOf(tile.Line(0, len(w)), w)
		if err := tile.EncodeAll(s.NewEncoder(safetensors.F32, 1<<20), s.Cut(), s.Written, v, data, new(tile.Scratch)); err != nil {
			t.Fatal(err)
		}
		x := make([]float32, len(w))
		s.Decode(x, data, tile.Line(0, len(w)), safetensors.F32, new(tile.Scratch))
		return x
	}
	was, is := restored(false), restored(true)
	var plain, found, least float64
	for i := range shape[0] {
		row := w[i*shape[1] : (i+1)*shape[1]]
		before, after := missOf(row, was[i*shape[1]:]), missOf(row, is[i*shape[1]:])
		if after > before*(1+1e-6) {
			t.Errorf("row %d: error %g, was %g", i, after, before)
		}
		lo, hi := kernel.MinMax(row)
		best := math.Inf(1)
		for step := range 1000 {
			scale := float32(float64(max(-lo, hi)) / 448 * math.Exp2(float64(step)/1000))
			x := make([]float32, len(row))
			for k, v := range row {
				x[k] = kernel.E4M3.Round(min(max(v/scale, -448), 448)) * scale
			}
			best = min(best, missOf(row, x))
		}
		plain, found, least = plain+before, found+after, least+best
	}
	if found > 1.05*least || found > 0.9*plain {
		t.Errorf("the error is %.4f of the least and %.4f of the plain one", found/least, found/plain)
	}
}

func missOf(want, got []float32) (sum float64) {
	for i, v := range want {
		d := float64(v) - float64(got[i])
		sum += d * d
	}
	return sum
}
