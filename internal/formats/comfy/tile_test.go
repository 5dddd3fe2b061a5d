package comfy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
)

// scaledRuns are runs of values by scales of groups.
type scaledRuns struct{ *Scaled }

func (s scaledRuns) Run(dst [][]byte, start int, w []float32, ranges []tile.Range, scratch *tile.Scratch) error {
	return s.encode(dst, tile.ValuesOf(tile.Line(start, start+len(w)), w), ranges, scratch)
}

// TestTilesOfRulesDoNotChangeBytes: a file would depend on memory and threads.
func TestTilesOfRulesDoNotChangeBytes(t *testing.T) {
	for _, shape := range [][]int{{12, 20}, {16, 35}} {
		r := rand.New(rand.NewPCG(11, uint64(shape[0])))
		for name, rule := range rules {
			for _, perRow := range []bool{false, true} {
				s, err := NewScaled(shape, rule.rule, perRow, false)
				if err != nil {
					t.Fatal(err)
				}
				for _, out := range outs {
					tiletest.CheckTiles(t, r, fmt.Sprint(name, perRow), scaledRuns{s}, &s.Grid, tiletest.Sample(r, s.Values), out)
				}
			}
		}
	}
}

// TestNonfiniteNamesTheValueOfRules: the user could not find it.
func TestNonfiniteNamesTheValueOfRules(t *testing.T) {
	c, err := NewScaled([]int{6, 20}, Int8Row, true, false)
	if err != nil {
		t.Fatal(err)
	}
	tiletest.CheckNames(t, scaledRuns{c})
}
