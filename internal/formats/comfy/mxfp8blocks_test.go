package comfy

import (
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestEightsOfEveryValue: every value of bfloat16 beside every greatest magnitude of a
// block has the code and the scale that dividing gives it, also where it is halfway
// between two codes, where it is subnormal, and where scales are extreme; a weight with
// one that has another would differ from the reference's.
func TestEightsOfEveryValue(t *testing.T) {
	t.Parallel()
	const columns = 128
	step := uint16(5)
	if testing.Short() {
		step = 397
	}
	for amax := uint16(0); amax < 1<<15; amax++ {
		if edge := amax&0x7F == 96 || amax&0x7F == 97; amax%step != 0 && !edge {
			continue
		}
		raw := blocksOf(amax, 32, columns)
		m, err := NewMXFP8([]int{len(raw) / 2 / columns, columns}, BlockOptions{AllowNonfinite: true})
		if err != nil {
			t.Fatal(err)
		}
		values := floats.Widen(make([]float32, len(raw)/2), raw, safetensors.BF16)
		compareStepwise(t, m, tile.Values{Area: wholeArea(m), Dtype: safetensors.BF16, Bytes: raw}, nil, m.stepwise(values))
	}
}
