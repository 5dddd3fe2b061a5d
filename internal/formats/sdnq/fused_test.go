package sdnq

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestFusedEqualsStepwise: the fast way to codes must not differ from the one
// that widens, scales, rounds and packs in turn, for any type, group, source or
// cut into tiles.
func TestFusedEqualsStepwise(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(31, 32))
	fusedTypes := 0
	for _, d := range dtype.All() {
		if !d.Storable() || d.Bits > 8 {
			continue
		}
		for i, group := range []int{-1, -2, 16, 20, 64, 0} {
			for j, allow := range []bool{false, true} {
				if testing.Short() && (i+j)%2 > 0 {
					continue
				}
				for k, source := range tiletest.Sources {
					for kind, shape := range [][]int{Linear: {24, 320}, Conv: {8, 40, 3, 3}, ConvTranspose: {40, 16, 2, 2}} {
						if shape == nil || Kind(kind) != Linear && (i+j)%len(tiletest.Sources) != k {
							continue
						}
						name := fmt.Sprint(d, shape, " group ", group, " of ", source, " nonfinite ", allow)
						o := Options{Dtype: d, Kind: Kind(kind), GroupSize: group, ScaleDtype: []safetensors.Dtype{safetensors.F32, safetensors.BF16}[i%2], AllowNonfinite: allow}
						s, err := NewScheme(shape, o)
						if err != nil {
							t.Fatalf("%s: %v", name, err)
						}
						w, raw := tiletest.RoundedTo(tiletest.AwkwardWeight(r, s.Values, s.Group/s.Inner, allow && source != safetensors.F16), source)
						compareFused(t, name, s, w, raw, source)
						fusedTypes++
					}
				}
			}
		}
	}
	if least := map[bool]int{true: 500, false: 1000}[testing.Short()]; fusedTypes < least {
		t.Errorf("%d types compared, want at least %d", fusedTypes, least)
	}
}

// compareFused encodes once stepwise, and raw in tiles of several sizes.
func compareFused(t *testing.T, name string, s *Scheme, w []float32, raw []byte, source safetensors.Dtype) {
	t.Helper()
	if s.fused == nil {
		t.Fatalf("%s: not fused", name)
	}
	stepwise := *s
	stepwise.fused = nil
	want := tiletest.Allocate(s, s.Values)
	wantErr := stepwise.encodeAll(want, w)
	for _, limit := range []int{s.Values, 40 * s.Block, 800 * s.Block} {
		got := tiletest.Allocate(s, s.Values)
		e := s.newEncoder(limit)
		e.list()
		if !e.raw(source) && (s.Inner == 1 || e.whole) { // else parts of interleaved groups
			t.Fatalf("%s: not raw", name)
		}
		err := tile.EncodeAll(e, s.Cut(), s.Written, tile.Values{Area: tile.Line(0, len(w)), Dtype: source, Bytes: raw}, got, new(tile.Scratch))
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("%s, tiles of %d: error %v, want %v", name, limit, err, wantErr)
		}
		for i := range got {
			if err == nil && !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%s, tiles of %d: %s differs", name, limit, s.Tensors()[i].Role)
			}
		}
	}
}

// TestInterleavedNonfinite: a NaN in a convolution is named by its place in the file,
// not among the values of its group.
func TestInterleavedNonfinite(t *testing.T) {
	shape := []int{40, 32, 3, 3}
	for _, at := range []int{0, 5000, 40*32*9 - 1} {
		w := tiletest.Sample(rand.New(rand.NewPCG(1, 3)), 40*32*9)
		w[at] = float32(math.NaN())
		_, err := Quantize(w, shape, Options{Dtype: dtype.Lookup("int6"), Kind: Conv, ScaleDtype: safetensors.F32})
		var n *tile.NonfiniteError
		if !errors.As(err, &n) || n.Index != at {
			t.Errorf("NaN at %d: got %v", at, err)
		}
	}
}
