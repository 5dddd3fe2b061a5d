package safetensors

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// TestMayRepeat: a name that comes twice must be found in whatever order names
// come, for a loader would take either body.
func TestMayRepeat(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var tensors []Tensor
		seen, twice := map[string]bool{}, false
		for range 1 + rng.IntN(4) { // ascending runs
			run := rng.Perm(40)[:rng.IntN(5)]
			slices.Sort(run)
			for _, n := range run {
				name := strconv.Itoa(n + 10)
				twice = twice || seen[name]
				seen[name] = true
				tensors = append(tensors, Tensor{Name: name})
			}
		}
		if got := mayRepeat(tensors); got != twice {
			t.Fatalf("%v: mayRepeat is %v, want %v", tensors, got, twice)
		}
	}
}
