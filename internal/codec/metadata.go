package codec

import (
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// describe is the JSON that convert_to_quant writes where it writes a format:
// it always names the dtype that the model is to run in, not the source's.
func describe(format string, s Settings, groupSize int, more ...pyjson.Member) pyjson.Object {
	o := pyjson.Object{{Key: "format", Value: format}, {Key: "orig_dtype", Value: s.origDtype()}}
	if groupSize > 0 {
		o = append(o, pyjson.Member{Key: "group_size", Value: groupSize})
	}
	return append(withMatmul(o, s), more...)
}

// describeDedicated is that of its own ways to mxfp8 and nvfp4.
func describeDedicated(format string, s Settings, groupSize int, shape []int) pyjson.Object {
	return pyjson.Object{
		{Key: "format", Value: format}, {Key: "group_size", Value: groupSize},
		{Key: "orig_dtype", Value: s.origDtype()}, {Key: "orig_shape", Value: shape},
	}
}

// origDtype is torch's name of [Settings.OutputDtype].
func (s Settings) origDtype() string {
	if s.OutputDtype == "f16" {
		return "torch.float16"
	}
	return "torch.bfloat16"
}

func refuseOutputDtype(s Settings) error {
	if s.OutputDtype != "" && s.OutputDtype != "bf16" && s.OutputDtype != "f16" {
		return fmt.Errorf("output dtype %s: want bf16 or f16", s.OutputDtype)
	}
	return nil
}

// HeaderEntry is the JSON of a layer that we make as a header has it: its own,
// with the keys that convert_to_quant gives its formats there. It has no
// per_row, which no loader reads.
func HeaderEntry(metadata pyjson.Object) pyjson.Object {
	o := metadata.Delete("per_row")
	name, _ := metadata.Get("format")
	if f := Lookup(fmt.Sprint(name)); f != nil {
		o = withGroup(o, f.HeaderGroup)
	}
	return o
}

// withGroup adds a group size where there is none yet, 0 for none.
func withGroup(o pyjson.Object, size int) pyjson.Object {
	if _, ok := o.Get("group_size"); ok || size == 0 {
		return o
	}
	return slices.Insert(slices.Clone(o), min(2, len(o)), pyjson.Member{Key: "group_size", Value: size})
}

// Label is what convert_to_quant calls a layer, whatever it is.
type Label struct {
	Format    string
	BlockSize int // 0 for none
}

// Relabel returns a layer's metadata under that name, and its entry in a header.
func (l Label) Relabel(o pyjson.Object) (metadata, header pyjson.Object) {
	o = o.Set("format", l.Format).Delete("group_size")
	switch f := Lookup(l.Format); {
	case f == nil:
	case f.NamesBlock:
		o = withGroup(o, l.BlockSize)
	case f.HeaderGroup > 0:
		return o, withGroup(o, l.BlockSize)
	}
	return o, o
}

// describeNative is the JSON that ComfyUI itself saves, for the other formats.
func describeNative(format string, s Settings, more ...pyjson.Member) pyjson.Object {
	return append(withMatmul(pyjson.Object{{Key: "format", Value: format}}, s), more...)
}

func withMatmul(o pyjson.Object, s Settings) pyjson.Object {
	if s.FullPrecisionMatmul {
		o = append(o, pyjson.Member{Key: "full_precision_matrix_mult", Value: true})
	}
	return o
}

// option looks where ComfyUI looks: at the top, then in "params".
func option(o pyjson.Object, key string) (any, bool) {
	if v, ok := o.Get(key); ok {
		return v, true
	}
	params, _ := o.Get("params")
	nested, _ := params.(pyjson.Object)
	return nested.Get(key)
}

// intOption returns a whole number of the metadata, or the default.
func intOption(o pyjson.Object, key string, otherwise int) (int, error) {
	v, ok := option(o, key)
	if !ok {
		return otherwise, nil
	}
	return toInt(key, v)
}

// orDefault is a setting, or its default where it was not given.
func orDefault(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// unpadded returns the shape of a weight that is stored padded to multiples of
// align: what the metadata or the hint says, if it pads to that, else the
// padded one.
func unpadded(l *Stored, rows, columns, align int) []int {
	fits := func(n, padded int) bool { return n > 0 && n <= padded && padded-n < align }
	said, err := ints(l.Metadata, "orig_shape")
	if err != nil {
		said = l.Hint
	}
	switch {
	case len(said) == 2 && fits(said[0], rows) && fits(said[1], columns):
		return said
	case len(said) == 1 && fits(said[0], rows):
		return []int{said[0], columns}
	}
	return []int{rows, columns}
}

// takenFor treats a stored dtype as the one whose bits it holds.
func takenFor(l *Stored, role tile.Role, from, to safetensors.Dtype) {
	if t, ok := l.Tensors[role]; ok && t.Dtype == from {
		t.Dtype = to
		l.Tensors[role] = t
	}
}

// codes returns the two dimensions of the codes.
func (l *Stored) codes() (rows, columns int, err error) {
	shape := l.Tensors[tile.Weight].Shape
	if len(shape) != 2 {
		return 0, 0, shapeError(shape)
	}
	return shape[0], shape[1], nil
}

// SettingsFromMetadata returns the settings of a stored layer in one of ComfyUI's
// formats, from its metadata and its codec.
func (f *Format) SettingsFromMetadata(metadata pyjson.Object, c Codec) storage.Settings {
	g := storage.Settings{Dtype: f.Name}
	if b := Matrices(c); b != nil {
		c = b.one()
	}
	for i := range fields {
		if one := &fields[i]; one.native != "" && f.takes(one) {
			one.read(&g, metadata)
		}
	}
	if f.told != nil {
		f.told(&g, metadata, c)
	}
	return g
}

// read says what the JSON of a format of ComfyUI's says of the setting.
func (f *Field) read(g *storage.Settings, metadata pyjson.Object) {
	switch f.Default().(type) {
	case bool:
		if v, _ := option(metadata, f.native); v == true {
			f.put(g, true)
		}
	case int:
		if n, err := intOption(metadata, f.native, 0); err == nil && n > 0 {
			f.put(g, n)
		}
	}
}
