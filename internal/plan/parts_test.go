package plan

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestRulesOverParts: many tensors are decided about at the same time, and a rule
// that quantizes a layer in one part is followed, whatever it meets in another.
func TestRulesOverParts(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	words := map[string]string{}
	for i := range 4 * fewSteps {
		words[fmt.Sprintf("a.%05d.norm.weight", i)] = "F32 64"
	}
	words["z.norm.weight"] = "F32 64 64"
	for i := range 5 {
		p := planned(t, words, Options{Set: rules(t, `norm=uint4`, `^a\.0000[0-9]\.norm|z=int5`)})
		if got := decisions(p)["z.norm.weight"]; got != "uint4" {
			t.Fatalf("run %d: z.norm is %q", i, got)
		}
	}
	_, err := Make(inventory(t, words), options(t, Options{Set: rules(t, `^a=uint4`)}))
	if err == nil || !strings.Contains(err.Error(), "tensor a.00000.norm.weight cannot be quantized") {
		t.Errorf("a rule for norms alone: %v", err)
	}
}
