package sdnq

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// schemeRuns are runs of values by a scheme.
type schemeRuns struct{ *Scheme }

func (s schemeRuns) Run(dst [][]byte, start int, w []float32, ranges []tile.Range, scratch *tile.Scratch) error {
	v := tile.ValuesOf(tile.Line(start, start+len(w)), w)
	return s.encode(dst, v, &passResults{ranges: ranges}, buffersOf(scratch))
}

// TestTilesDoNotChangeBytes: a file would depend on memory and threads. Blocks
// of 16 and groups of 5 cross the rows of 20.
func TestTilesDoNotChangeBytes(t *testing.T) {
	scales := []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16}
	for _, shape := range [][]int{{12, 20}, {16, 35}} {
		t.Run(fmt.Sprint(shape), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(11, uint64(shape[0])))
			n := 0
			for _, d := range dtype.All() {
				if !d.Storable() {
					continue
				}
				for _, group := range []int{0, 5, 7, 10, -1, -2} {
					n++
					o := Options{Dtype: d, GroupSize: group, ScaleDtype: scales[n%3], ExactReference: n%2 == 0}
					s, err := NewScheme(shape, o)
					if err != nil {
						t.Fatal(err)
					}
					tiletest.CheckTiles(t, r, fmt.Sprintf("%v group %d", d, group), schemeRuns{s}, &s.Grid, tiletest.Sample(r, s.Values), safetensors.F32)
				}
			}
			if n != 6*172 {
				t.Errorf("%d cases, want %d", n, 6*172)
			}
		})
	}
}

// TestNonfiniteNamesTheValue: the user could not find it.
func TestNonfiniteNamesTheValue(t *testing.T) {
	shape := []int{6, 20}
	s, err := NewScheme(shape, Options{Dtype: golden.Dtype(t, "uint4"), GroupSize: 10, ScaleDtype: safetensors.F32})
	if err != nil {
		t.Fatal(err)
	}
	tiletest.CheckNames(t, schemeRuns{s})
	w := make([]float32, 120)
	w[7] = float32(math.NaN())
	if _, err := Quantize(w, shape, Options{Dtype: golden.Dtype(t, "uint4"), ScaleDtype: safetensors.F32}); err == nil || err.Error() != "value 7 is NaN" {
		t.Errorf("error %v", err)
	}
}
