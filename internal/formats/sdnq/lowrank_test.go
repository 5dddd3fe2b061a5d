package sdnq

import (
	"errors"
	"math"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
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
