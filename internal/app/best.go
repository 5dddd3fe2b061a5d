package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/storage"
)

// Best is the best that an application loads at a number of bits a value: what loses
// least on real weights, by the figures in docs/choosing.md.
type Best struct {
	Bits int
	storage.Settings
	// Instead is for layers that those settings cannot hold; nil where there are none.
	Instead *storage.Settings
}

// bestComfyUI: rotated weights lose least of what stock ComfyUI loads, and need columns
// in multiples of the rotation, which other layers do not have.
var bestComfyUI = []Best{
	{Bits: 8, Settings: storage.Settings{Dtype: "int8_tensorwise", ConvRot: new(true), Search: new(true)}},
	{Bits: 6, Settings: storage.Settings{Dtype: "asym_w4a8_int8", Bits: new(6), Search: new(true)},
		Instead: &storage.Settings{Dtype: "int8_tensorwise", ConvRot: new(true), Search: new(true)}},
	{Bits: 4, Settings: storage.Settings{Dtype: "asym_w4a8_int8", Search: new(true)},
		Instead: &storage.Settings{Dtype: "nvfp4", Search: new(true)}},
}

// bestSDNQ: groups of 32 with scales and zero points of 8 bits take half a bit a value,
// as groups of 128 with scales in F32 do, and lose half as much.
var bestSDNQ = []Best{doubled(8), doubled(6), doubled(5), doubled(4), doubled(3), doubled(2)}

func doubled(bits int) Best {
	return Best{Bits: bits, Settings: storage.Settings{
		Dtype: fmt.Sprint("uint", bits), GroupSize: new(32), ScaleDtype: "uint8", Search: new(true),
	}}
}

// bestInvokeAI: it knows no double quantization.
var bestInvokeAI = []Best{
	{Bits: 8, Settings: storage.Settings{Dtype: "uint8", GroupSize: new(-1), Search: new(true)}},
	{Bits: 5, Settings: storage.Settings{Dtype: "int5", GroupSize: new(32), Search: new(true)}},
	{Bits: 4, Settings: storage.Settings{Dtype: "uint4", GroupSize: new(32), DequantizeFP32: new(false), Search: new(true)}},
}

// BestAt returns the best that the application loads at that many bits a value.
func (a *App) BestAt(bits int) (*Best, error) {
	for i := range a.best {
		if a.best[i].Bits == bits {
			return &a.best[i], nil
		}
	}
	var all []string
	for _, b := range a.best {
		all = append(all, fmt.Sprint(b.Bits))
	}
	return nil, usage.Errorf("`Bits` %d: for %s there are %s", bits, a.Name, strings.Join(all, ", "))
}

// Choices returns the best at every number of bits, from many to few.
func (a *App) Choices() []Best { return slices.Clone(a.best) }
