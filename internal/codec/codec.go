// Package codec is the table of storage formats: for each, how a weight's
// values become stored tensors and back, tile by tile, and what its metadata
// says. A format is a row here and a small file of its own.
package codec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// Codec stores one weight, area by area. The bytes do not depend on how the weight is
// cut into areas.
type Codec interface {
	// Shape is that of the weight.
	Shape() []int
	// Tensors are what is stored; the codes come first.
	Tensors() []tile.Tensor
	Cut() tile.Cut
	// Written returns the bytes of stored tensor i that encoding an area fills.
	Written(i int, a tile.Area) []tile.Span
	// Needed returns the bytes of stored tensor i that decoding an area takes.
	Needed(i int, a tile.Area) []tile.Span
	// NewEncoder prepares to encode the weight once, from values of the dtype from, in
	// tiles whose work takes at most memory bytes.
	NewEncoder(from safetensors.Dtype, memory int) tile.Encoder
	// Decode fills dst with the values of an area from the bytes that Needed names,
	// computed as for a model of dtype out: F32, BF16 or F16.
	Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, s *tile.Scratch)
}

// Source is what a codec needs to know of a plain tensor.
type Source struct {
	Name  string // of the layer: chances follow from it
	Shape []int
	Dtype safetensors.Dtype
	// Moments are how much the errors of each column of a linear weight count in a search:
	// the mean squares of its inputs, their mean being 1. nil if all count alike. A format
	// that has a search takes them from here, those of rotated columns by way of
	// [rotation.Moments].
	Moments []float32
}

// Format is a row of the table: one way to store a layer.
type Format struct {
	// Name is what "format" in a layer's metadata says.
	Name string
	// Bits, Storage and Max of the codes; SDNQ's follow from the dtype.
	Bits    int
	Storage safetensors.Dtype
	Max     float64
	// Scales are the formats that --scale selects from this one, by its values, itself
	// included; nil if the format has no choice.
	Scales map[string]string
	// Takes are the flags of settings, among those that only some formats have, that
	// apply to this one.
	Takes []string
	// Variant is the only one of [Settings.Variant] that it has, "" for none.
	Variant string
	// Refuse says what is wrong with values of those flags.
	Refuse func(s Settings) error
	// Gains says that a search finds better scales than the plain ones, in one form of
	// the format at least. SDNQ's dtypes tell it themselves.
	Gains bool
	// ComfyUI is the first release of ComfyUI that loads the format, [AnyRelease] if
	// every release in use does, "" if none does.
	ComfyUI string
	// Near is the nearest format that ComfyUI loads, for one that it does not load.
	Near string
	// Embeddings is the first release of ComfyUI that loads embeddings in the format,
	// "" if none does.
	Embeddings string
	// Banks is the first release of ComfyUI that loads the experts of a layer in the format,
	// matrices in one tensor, "" if none does: then none are written.
	Banks string
	// Weighs says that its search weighs errors by [Source.Moments].
	Weighs bool
	// Smooths says that the moments change what is quantized, searched or not.
	Smooths bool
	// Unsigned codes have no negative ones.
	Unsigned bool
	// ReadOnly says why no layer is written in the format, "" if layers are.
	ReadOnly string
	// ScaleText is what shares a scale, in a table's words: "row", "block",
	// "group 16". "" where the metadata tell it, as they do for SDNQ's, or where it
	// is the tensor.
	ScaleText string
	// IgnoresInput says that no reader reads scales of activations beside it, though
	// programs write them.
	IgnoresInput bool
	// HeaderGroup is the group size that convert_to_quant names in a header alone, 0
	// for none; NamesBlock says that it names the side of blocks in both places.
	HeaderGroup int
	NamesBlock  bool
	// Kin is the nearest of SDNQ's dtypes.
	Kin Kin
	// told adds to settings what the metadata and tensors of this format alone tell.
	told func(g *storage.Settings, metadata pyjson.Object, c Codec)
	// toSDNQ returns the settings with which SDNQ has the same codes and scales; nil if
	// SDNQ has no such thing. fromSDNQ are the layers of SDNQ's that can be moved to
	// this format.
	toSDNQ   func(metadata pyjson.Object, c Codec) (Settings, error)
	fromSDNQ []origin
	// make resolves settings for a source; the error says what cannot hold it.
	// The object is the layer's JSON in the comfy layout.
	make func(src Source, s Settings) (Codec, pyjson.Object, error)
	// Open makes the codec of a stored layer.
	Open func(l *Stored) (Codec, error)
}

// AnyRelease means every release of ComfyUI that knows quantized layers.
const AnyRelease = "any"

// bankRelease is a release that loads experts in each of the formats that have Banks.
const bankRelease = "0.33.0"

// Stored is a layer as it was found: its metadata, and its tensors by role.
type Stored struct {
	Metadata pyjson.Object
	Tensors  map[tile.Role]tile.Tensor
	// Hint is what else tells the weight's shape: nil, [rows] or [rows, columns].
	Hint []int
}

// Formats lists every row.
func Formats() []*Format {
	return []*Format{
		int8Tensorwise, float8E4M3, float8E5M2, mxfp8, nvfp4, convrotW4A4, asymW4A8, awqW4A16,
		float8Rowwise, float8Blockwise, float8Block3D, int8Blockwise, hybridMXFP8, svdquantW4A4, sdnqFormat,
	}
}

// Lookup returns the format of that name, nil if there is none.
func Lookup(name string) *Format {
	for _, f := range Formats() {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// ByName returns the format that metadata names.
func ByName(name string) (*Format, error) {
	if f := Lookup(name); f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("format %q is not supported%s", name, suggest.Hint(name, formatNames()))
}

func formatNames() []string {
	var names []string
	for _, f := range Formats() {
		names = append(names, f.Name)
	}
	return names
}

// SDNQ is the format in which every layer of the sdnq layout is stored.
func SDNQ() *Format { return sdnqFormat }

// Resolve returns the format of a dtype's name. In the sdnq layout all names
// are SDNQ's; elsewhere ComfyUI's own and their aliases come first, and "sdnq:"
// asks for SDNQ's.
func Resolve(name string, sdnqLayout bool) (*Format, error) {
	name, sdnq := strings.CutPrefix(name, "sdnq:")
	if !sdnq && !sdnqLayout {
		if f := native(name); f != nil {
			return f, nil
		}
	}
	t := dtype.Lookup(name)
	if t == nil {
		if f := native(name); f != nil {
			return nil, comfyAlone(f)
		}
		return nil, unknownDtype(name, sdnqLayout || sdnq)
	}
	if !t.Storable() {
		return nil, fmt.Errorf("dtype %s cannot store a weight: its values do not survive", t)
	}
	return sdnqFormat, nil
}

// match returns an error for tensors that are missing, extra, or of another dtype or
// shape than the codec stores.
func match(c Codec, l *Stored) error {
	want := c.Tensors()
	for _, w := range want {
		got, ok := l.Tensors[w.Role]
		if !ok {
			return fmt.Errorf("its %s is missing", w.Role)
		}
		if got.Dtype != w.Dtype || !sameShape(got.Shape, w.Shape) {
			return fmt.Errorf("%s is %s %v, want %s %v", w.Role, got.Dtype, got.Shape, w.Dtype, w.Shape)
		}
	}
	return extra(want, l)
}

func extra(want []tile.Tensor, l *Stored) error {
	for _, role := range slices.Sorted(maps.Keys(l.Tensors)) { // in one order, for the message
		known := role == tile.InputScale // of activations: no weight needs it
		for _, w := range want {
			known = known || w.Role == role
		}
		if !known {
			return fmt.Errorf("has a %s that its format does not", role)
		}
	}
	return nil
}

// sameShape takes a single scale for a scalar whatever its dimensions, as every
// loader does.
func sameShape(a, b []int) bool {
	return slices.Equal(a, b) || tile.Numel(a) == 1 && tile.Numel(b) == 1 || len(a) <= 1 && len(b) <= 1 && tile.Numel(a) == tile.Numel(b)
}
