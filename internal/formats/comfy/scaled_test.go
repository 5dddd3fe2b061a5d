package comfy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestRawScaledEqualsWidened does the same for ComfyUI's formats.
func TestRawScaledEqualsWidened(t *testing.T) {
	r := rand.New(rand.NewPCG(33, 34))
	for i, rule := range []*ScaleRule{Int8Tensor, Int8Row, E4M3Tensor, E5M2Tensor, E4M3Group, Int8Block} {
		for _, group := range []int{320, 20, 320 * 24} {
			for _, source := range tiletest.Sources {
				for _, allow := range []bool{false, true} {
					s, err := NewGrouped([]int{24, 320}, rule, group, []int{}, allow)
					if err != nil {
						t.Fatal(err)
					}
					w, raw := tiletest.RoundedTo(tiletest.AwkwardWeight(r, s.Values, group, allow), source)
					want := [][]byte{make([]byte, s.Values), make([]byte, 4*s.Groups())}
					wantErr := scaledStepwise(s, want, w)
					for _, limit := range []int{s.Values, 40, 800} {
						got := [][]byte{make([]byte, s.Values), make([]byte, 4*s.Groups())}
						err := tile.EncodeAll(tile.NewRanged(s.Cut(), limit, s.encode, s.fused.RangesOf), s.Cut(), s.Written, tile.Values{Area: tile.Line(0, s.Values), Dtype: source, Bytes: raw}, got, new(tile.Scratch))
						if fmt.Sprint(err) != fmt.Sprint(wantErr) || err == nil && !(bytes.Equal(got[0], want[0]) && bytes.Equal(got[1], want[1])) {
							t.Fatalf("rule %d, groups of %d, %v, tiles of %d: differs (%v, want %v)", i, group, source, limit, err, wantErr)
						}
					}
				}
			}
		}
	}
}

// scaledStepwise is the definition.
func scaledStepwise(s *Scaled, dst [][]byte, w []float32) error {
	for g := range s.Groups() {
		values := append([]float32(nil), w[g*s.Group:(g+1)*s.Group]...)
		r := tile.RangeOf(values)
		if !r.Finite() && !s.AllowNonfinite {
			return tile.CheckFinite(g*s.Group, values)
		}
		factor, scale := s.Rule.scaleOf(r)
		floats.PutFloat(dst[1], g, scale, safetensors.F32)
		s.Rule.normalize(values, factor)
		s.Rule.encodeBytes(dst[0][g*s.Group:(g+1)*s.Group], values, new(tile.Scratch))
	}
	return nil
}
