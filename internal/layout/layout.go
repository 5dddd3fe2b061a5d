// Package layout knows the names and metadata of quantized layers on disk: what their
// tensors are called, and how a reader finds the layers of a checkpoint.
package layout

import (
	"fmt"
	"strings"

	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Layout is a way to name the tensors of a layer.
type Layout struct {
	Name     string
	suffixes map[tile.Role]string
	// parameter says that what a layer restores to has its name, which no .weight follows.
	parameter bool
	// SelfDescribing means that each layer has a tensor with its metadata; otherwise
	// one config describes all layers.
	SelfDescribing bool
}

// The layouts that are written.
var (
	// SDNQ is the layout that sdnq, diffusers, transformers, SD.Next and InvokeAI load.
	SDNQ = &Layout{Name: "sdnq", suffixes: map[tile.Role]string{
		tile.Weight: ".weight", tile.Scale: ".scale", tile.ZeroPoint: ".zero_point",
		tile.Scale2: ".scale_2", tile.ScaleZeroPoint: ".scale_zero_point",
		tile.ZeroPointScale: ".zero_point_scale", tile.ZeroPoint2: ".zero_point_2",
		tile.SVDUp: ".svd_up", tile.SVDDown: ".svd_down",
	}}
	// Comfy is ComfyUI's layout: one state dict whose layers describe themselves.
	Comfy = &Layout{Name: "comfy", SelfDescribing: true, suffixes: map[tile.Role]string{
		tile.Weight: ".weight", tile.Scale: ".weight_scale", tile.ZeroPoint: ".weight_zp",
		tile.Scale2: ".weight_scale_2", tile.ScaleZeroPoint: ".weight_scale_zp",
		tile.ZeroPointScale: ".weight_zp_scale", tile.ZeroPoint2: ".weight_zp_2",
		tile.SVDUp: ".svd_up", tile.SVDDown: ".svd_down",
		tile.GroupScale: ".weight_s_rel", tile.ChannelScale: ".weight_s_channel",
		tile.Codebook: ".weight_codebook", tile.Zeros: ".weight_zeros", tile.Scalar: ".weight_scalar",
		tile.InputScale: ".input_scale",
		tile.ProjDown:   ".weight_proj_down", tile.ProjUp: ".weight_proj_up", tile.SmoothFactor: ".weight_smooth_factor",
	}}
)

// The layouts that are read and not written: 8-bit codes with scales, and no
// description of any layer.
var (
	// ScaledFP8 is ComfyUI's older layout, marked by a tensor scaled_fp8.
	ScaledFP8 = &Layout{Name: "scaled_fp8", suffixes: map[tile.Role]string{
		tile.Weight: ".weight", tile.Scale: ".scale_weight", tile.InputScale: ".scale_input",
	}}
	// ScaleInv is DeepSeek's layout, with one scale per block of 128 by 128 values.
	ScaleInv = &Layout{Name: "weight_scale_inv", suffixes: map[tile.Role]string{
		tile.Weight: ".weight", tile.Scale: ".weight_scale_inv", tile.InputScale: ".activation_scale",
	}}
	// WeightScale is the layout of compressed-tensors and other programs.
	WeightScale = &Layout{Name: "weight_scale", suffixes: map[tile.Role]string{
		tile.Weight: ".weight", tile.Scale: ".weight_scale", tile.InputScale: ".input_scale",
	}}
)

// Further layouts that are read and not written.
var (
	// PlainScale is the layout of programs that name scales as SDNQ does.
	PlainScale = &Layout{Name: "scale", suffixes: map[tile.Role]string{
		tile.Weight: ".weight", tile.Scale: ".scale", tile.InputScale: ".input_scale",
	}}
	// Bare is ComfyUI's layout without the descriptions.
	Bare = &Layout{Name: "undescribed", suffixes: Comfy.suffixes}
)

// ByName returns the written layout of that name. The error lists their names.
func ByName(name string) (*Layout, error) {
	var names []string
	for _, l := range []*Layout{SDNQ, Comfy} {
		if l.Name == name {
			return l, nil
		}
		names = append(names, l.Name)
	}
	return nil, fmt.Errorf("unknown layout %q%s", name, suggest.HintOrAll(name, names))
}

const (
	metadataSuffix = ".comfy_quant"
	weightSuffix   = ".weight"
)

// TensorName returns the name of a layer's tensor with that role.
func (l *Layout) TensorName(layer string, role tile.Role) string {
	return layer + l.suffixes[role]
}

// PartOf returns the layer to which readers of the layout would count a tensor because
// of its name. The weight itself does not count.
func (l *Layout) PartOf(name string) (layer string, ok bool) {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return "", false
	}
	end := name[dot:]
	if end == weightSuffix {
		return "", false
	}
	_, part := l.role(end)
	part = part || l.SelfDescribing && (end == metadataSuffix || end == PreQuantScale)
	return name[:dot], part
}

// WeightName returns the name of a layer's weight, which is the same before and after
// quantization.
func WeightName(layer string) string { return layer + weightSuffix }

// WeightName returns the name of the weight that the layer restores to.
func (l *Layer) WeightName() string {
	if l.Layout != nil && l.Layout.parameter {
		return l.Name
	}
	return WeightName(l.Name)
}

// IsMetadata reports whether a tensor of that name describes a layer.
func IsMetadata(name string) bool { return strings.HasSuffix(name, metadataSuffix) }

// Literal is a small tensor whose bytes the plan already knows.
type Literal struct {
	safetensors.Tensor
	Data []byte
}

// MetadataName returns the name of the tensor that describes a layer.
func MetadataName(layer string) string { return layer + metadataSuffix }

// MetadataTensor returns the tensor that holds a layer's description: its JSON text as
// U8, one byte per element.
func MetadataTensor(layer string, metadata pyjson.Object) Literal {
	text := []byte(pyjson.Dump(metadata))
	return Literal{
		safetensors.Tensor{Name: MetadataName(layer), Dtype: safetensors.U8, Shape: []int{len(text)}},
		text,
	}
}
