package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestScaleTextIsTrue: plan and inspect say of a layer in every format what shares
// a scale there.
func TestScaleTextIsTrue(t *testing.T) {
	const side = 512
	for _, f := range codec.Formats() {
		if f.ReadOnly != "" {
			continue
		}
		s := codec.Default()
		if s.Dtype = f.Name; f == codec.SDNQ() {
			s.Dtype = "uint4"
		}
		c, metadata, err := f.Make(codec.Source{Shape: []int{side, side}, Dtype: safetensors.BF16}, s)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		scales := 1
		for _, stored := range c.Tensors() {
			if stored.Role == tile.Scale || stored.Role == tile.GroupScale {
				scales = max(scales, numel(stored.Shape))
			}
		}
		want := []string{fmt.Sprintf("group %d", side*side/scales), "block"}
		switch scales {
		case 1:
			want = []string{"tensor"}
		case side:
			want = []string{"row"}
		}
		if got, _ := strings.CutSuffix(scaleText(metadata), " 128"); !slices.Contains(want, got) {
			t.Errorf("%s: %q, want %s", f.Name, got, strings.Join(want, " or "))
		}
	}
}

func numel(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
