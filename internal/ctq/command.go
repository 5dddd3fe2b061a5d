package ctq

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// Notes say which options decide nothing.
func (c *Command) Notes() (notes []string) {
	for _, o := range c.Given() {
		if o.Use == Idle && o.Name() != "device" && o.Name() != "low_memory" && o.Name() != "verbose" {
			notes = append(notes, o.Names[0]+" decides nothing: "+strings.ReplaceAll(o.Ours, "`", ""))
		}
	}
	return notes
}

// Suffix is what the name of the output has beyond that of the source.
func (c *Command) Suffix() string {
	if j := c.job(); j != nil {
		return j.suffix + ".safetensors"
	}
	how := "learned_"
	if c.Has("simple") {
		how = "simple_"
	}
	mixed := ""
	if c.Has("custom_layers") || c.anyPreset() {
		mixed = "mixed"
	}
	t := translation{Command: c}
	switch {
	case t.dedicated() != "":
		return fmt.Sprintf("_%s%s%s.safetensors", how, t.dedicated(), mixed)
	case c.Has("int8"):
		return fmt.Sprintf("_%sint8%s%s.safetensors", how, mixed, t.int8Suffix())
	}
	return fmt.Sprintf("_%sfp8%s_%s.safetensors", how, mixed, c.Text("scaling_mode"))
}

func (t *translation) int8Suffix() string {
	switch scales[t.Text("scaling_mode")] {
	case "tensor":
		return "_tensorwise"
	case "row":
		return "_rowwise"
	}
	return fmt.Sprintf("_bs%d", t.blockSize())
}

func (c *Command) anyPreset() bool {
	for _, f := range preset.Filters() {
		if c.Has(f.Name) {
			return true
		}
	}
	return false
}

// Template is a layer config to be filled in: every weight with both sides of
// 16 or more.
func Template(tensors []checkpoint.Tensor) string {
	o := pyjson.Object{
		{Key: "_default", Value: pyjson.Object{{Key: "format", Value: ""}}},
		{Key: "_exclusions", Value: []any{}},
	}
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b checkpoint.Tensor) int { return cmp.Compare(a.Name, b.Name) })
	for _, t := range tensors {
		layer, isWeight := strings.CutSuffix(t.Name, ".weight")
		if isWeight && len(t.Shape) == 2 && t.Shape[0] >= 16 && t.Shape[1] >= 16 {
			o = append(o, pyjson.Member{Key: layer, Value: pyjson.Object{{Key: "format", Value: ""}, {Key: "_shape", Value: t.Shape}}})
		}
	}
	return pyjson.DumpIndented(o)
}
