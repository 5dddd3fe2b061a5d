package sdnq

import (
	"errors"
	"math"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/lowrank"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestSearchNamesTheValue: a NaN anywhere in a tile must be reported with its
// place in the tensor, in any dtype.
func TestSearchNamesTheValue(t *testing.T) {
	const columns, rows = 1024, 300
	for _, from := range tiletest.Sources {
		for _, at := range []int{0, 131071, 131072, 200_001, 256*columns - 1} {
			o := Options{Dtype: dtype.Lookup("uint4"), Rank: 32, SourceDtype: from, ModelDtype: from}
			s, err := NewScheme([]int{rows, columns}, o)
			if err != nil {
				t.Fatal(err)
			}
			w := make([]float32, 256*columns)
			for i := range w {
				w[i] = 1
			}
			w[at] = float32(math.NaN())
			_, raw := tiletest.RoundedTo(w, from)
			_, err = s.NewEncoder(from, 1<<25).Needs().Passes[0].Read(tile.Values{Area: tile.Line(0, len(w)), Dtype: from, Bytes: raw}, new(tile.Scratch))
			var n *tile.NonfiniteError
			if !errors.As(err, &n) || n.Index != at {
				t.Errorf("%s, NaN at %d: %v", from, at, err)
			}
		}
	}
}

// TestDefaultSteps: SDNQ's number of steps is the default, and -1 is none.
func TestDefaultSteps(t *testing.T) {
	for steps, want := range map[int]int{0: lowrank.SVDSteps, -1: 0, 3: 3} {
		s, err := NewScheme([]int{64, 512}, Options{Dtype: golden.Dtype(t, "int8"), Rank: 20, RankSteps: steps})
		if err != nil {
			t.Fatal(err)
		}
		found, err := lowrank.New(64, 512, 20, want)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(s.NewEncoder(safetensors.F32, 1<<25).Needs().Passes); got != found.Passes() {
			t.Errorf("%d steps: %d passes, want %d", steps, got, found.Passes())
		}
	}
}
