package renamed

import (
	"errors"
	"testing"

	"github.com/tensorpress/tensorpress/internal/names"
)

// TestShortened: what is wrong with the same layers of many blocks must be one text, or
// an error would list every block.
func TestShortened(t *testing.T) {
	t.Parallel()
	for _, block := range []string{"transformer_blocks.0.", "transformer_blocks.17."} {
		q, k, mlp := block+"attn.to_q.weight", block+"attn.to_k.weight", block+"proj_mlp.weight"
		why := errors.New(q + " is uint4, " + k + " is int8")
		for _, tt := range []struct {
			parts []names.Part
			want  string
		}{
			{[]names.Part{{Source: q}, {Source: k}}, "to_q is uint4, to_k is int8"},
			{[]names.Part{{Source: q}, {Source: k}, {Source: mlp}}, "attn.to_q is uint4, attn.to_k is int8"},
			{[]names.Part{{Source: q}}, why.Error()},
		} {
			if got := shortened(why, tt.parts).Error(); got != tt.want {
				t.Errorf("%s: want %s", got, tt.want)
			}
		}
	}
}
