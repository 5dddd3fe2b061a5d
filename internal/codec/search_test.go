package codec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// bothWays calls do with every form of ComfyUI's formats, without a search and with one.
func bothWays(t *testing.T, shape []int, nonfinite bool, do func(t *testing.T, f *Format, s Settings, plain, searched Codec)) {
	t.Helper()
	for _, s := range nativeCases(t) {
		if s.Search {
			continue
		}
		if s.AllowNonfinite = nonfinite; nonfinite && s.Dtype == "svdquant_w4a4" {
			continue // no weight with a low-rank part has any
		}
		t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
			src := Source{Name: "a", Shape: shape, Dtype: safetensors.F32}
			f, plain, metadata := made(t, src, s)
			s.Search = true
			_, searched, others := made(t, src, s)
			if pyjson.Dump(metadata) != pyjson.Dump(others) || fmt.Sprint(plain.Tensors()) != fmt.Sprint(searched.Tensors()) {
				t.Errorf("it is stored as %v %v, want %v %v", others, searched.Tensors(), metadata, plain.Tensors())
			}
			do(t, f, s, plain, searched)
		})
	}
}

// missesOf are the squared errors of the groups that share a scale.
func missesOf(c Codec, got, want []float32) []float64 {
	cut := c.Cut()
	if len(c.Tensors()) == 3 && c.Tensors()[2].Role == tile.Scale2 { // a scale of the tensor, and others of blocks
		cut.GroupRows, cut.GroupCols = 1, 16
	}
	misses := make([]float64, tile.CeilDiv(cut.Rows, cut.GroupRows)*tile.CeilDiv(cut.Cols, cut.GroupCols))
	all := tile.Area{Rows: cut.Rows, Cols: cut.Cols}
	cut.Groups(all, func(group int, part tile.Area) {
		for i := range part.Rows {
			at := all.At(part, i)
			for k := at; k < at+part.Cols; k++ {
				d := float64(got[k]) - float64(want[k])
				misses[group] += d * d
			}
		}
	})
	return misses
}

// taken are values as a codec with these settings takes them.
func taken(w []float32, s Settings) []float32 {
	if s.Variant == nvfp4.Variant { // which rounds them before it quantizes them
		floats.RoundAll(w, safetensors.BF16)
	}
	return w
}

// TestSearchLosesLess: a search makes no group worse and, in a format that gains by it,
// the weight better. In others the bytes are those without it.
func TestSearchLosesLess(t *testing.T) {
	t.Parallel()
	shape := []int{128, 1024}
	gained := map[*Format]bool{}
	bothWays(t, shape, false, func(t *testing.T, f *Format, s Settings, plain, searched Codec) {
		w := taken(bell(shape), s)
		before, after := encoded(t, plain, w, 1<<20), encoded(t, searched, w, 1<<20)
		if !Gains(searched) {
			for i := range before {
				if !bytes.Equal(before[i], after[i]) {
					t.Errorf("tensor %d differs, though nothing is to be gained", i)
				}
			}
			return
		}
		gained[f] = true
		if !f.Gains {
			t.Error("its row says that it gains nothing")
		}
		was, is := restored(t, plain, before, 1<<20, safetensors.F32), restored(t, searched, after, 1<<20, safetensors.F32)
		if got := relMSE(is, w) / relMSE(was, w); got > 0.99 {
			t.Errorf("the error is %.4f of the plain one", got)
		}
		misses := missesOf(plain, was, w)
		if s.SVDRefit > 0 {
			return // groups are of what another low-rank part leaves
		}
		for i, e := range missesOf(searched, is, w) {
			if e > misses[i]*(1+1e-5) {
				t.Errorf("group %d: error %g, was %g", i, e, misses[i])
			}
		}
	})
	for _, f := range natives() {
		if f.Gains && !gained[f] {
			t.Errorf("%s gains nothing, though its row says so", f.Name)
		}
	}
}

// TestSearchOfAwkwardWeights: zeros, constants, tiny and huge values are stored no worse
// than without a search, and NaN and infinity as without.
func TestSearchOfAwkwardWeights(t *testing.T) {
	t.Parallel()
	shape := []int{128, 256}
	for _, nonfinite := range []bool{false, true} {
		r := rand.New(rand.NewPCG(3, 1))
		bothWays(t, shape, nonfinite, func(t *testing.T, _ *Format, s Settings, plain, searched Codec) {
			if !Gains(searched) || s.SVDRefit > 0 {
				return
			}
			w := taken(tiletest.AwkwardWeight(r, tile.Numel(shape), 256, nonfinite), s)
			was := restored(t, plain, encoded(t, plain, w, 1<<20), 1<<20, safetensors.F32)
			is := restored(t, searched, encoded(t, searched, w, 1<<20), 1<<20, safetensors.F32)
			misses, after := missesOf(plain, was, w), missesOf(searched, is, w)
			for i, before := range misses {
				if e := after[i]; e == e != (before == before) || before == before && !(e <= before*(1+1e-5)) {
					t.Errorf("group %d: error %g, was %g", i, e, before)
				}
			}
		})
	}
}
