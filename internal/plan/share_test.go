package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/layout"
)

// experts are two thirds of this model's bytes.
var experts = map[string]string{
	"model.layers.0.mlp.experts.gate_up_proj": "BF16 4 64 64",
	"model.layers.0.mlp.experts.bias":         "BF16 4 64",
	"model.layers.0.experts.w2.weight":        "BF16 2 64 64",
	"model.layers.0.self_attn.q_proj.weight":  "BF16 64 128",
	"model.pos_embed":                         "BF16 1 64 4",
	"mtp.fc.weight":                           "BF16 64 64",
}

// TestFusedExperts: who plans a mixture of experts must see that most of it stays
// as it is, and why.
func TestFusedExperts(t *testing.T) {
	p := planned(t, experts, Options{Layout: layout.SDNQ, SkipKeys: true, MinNumel: ptr(0)})
	want := map[string]string{
		"model.layers.0.mlp.experts.gate_up_proj": "fused experts: 3 dimensions, which are not quantized; 43.8% of the bytes",
		"model.layers.0.experts.w2.weight":        "fused experts: 3 dimensions, which are not quantized; 21.9% of the bytes",
		"model.layers.0.self_attn.q_proj.weight":  "",
		"mtp.fc.weight":                           "multi-token prediction, which transformers does not load; 11.0% of the bytes",
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		reason, listed := want[s.Source.Name]
		if s.IsListed() != listed || listed && s.Reason != reason {
			t.Errorf("%s: listed %v, %q, want %v, %q", s.Source.Name, s.IsListed(), s.Reason, listed, reason)
		}
	}
	const note = "78% of the bytes stay unquantized: 66% fused experts, 11% multi-token prediction, which transformers does not load, 1% not a weight"
	if !slices.Contains(p.Notes, note) {
		t.Errorf("notes %q, want %q", p.Notes, note)
	}
}

// TestMostIsQuantized: a model of which little is kept needs no word about it.
func TestMostIsQuantized(t *testing.T) {
	p := planned(t, map[string]string{"a.weight": "BF16 64 64", "b.weight": "BF16 64 64", "emb": "BF16 2 32 64"}, Options{Layout: layout.SDNQ, MinNumel: ptr(0)})
	if strings.Contains(strings.Join(p.Notes, "\n"), "unquantized") {
		t.Errorf("notes %q", p.Notes)
	}
}
