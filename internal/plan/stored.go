package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Inventory is what a checkpoint holds once its layers are restored: its plain
// tensors, and for every layer one that stands for the weight. stored has the
// layers by the names of these.
func Inventory(m *layout.Model) (tensors []checkpoint.Tensor, stored map[string]*layout.Layer, err error) {
	if len(m.Layers) == 0 {
		return m.Plain, nil, nil
	}
	if err := m.Failed(); err != nil {
		return nil, nil, usage.Source(err)
	}
	tensors, stored = slices.Clone(m.Plain), map[string]*layout.Layer{}
	dtype := DtypeIn(m)
	for _, l := range m.Layers {
		t := layerTensor(l, dtype(l))
		t.Size = 0
		for _, one := range l.Tensors {
			t.Size += one.Size
		}
		tensors, stored[t.Name] = append(tensors, t), l
	}
	slices.SortFunc(tensors, func(a, b checkpoint.Tensor) int { return strings.Compare(a.Name, b.Name) })
	return tensors, stored, nil
}

// DtypeIn returns what tells the dtype of a weight before it was quantized: what its
// layer says, else that of most kept bytes.
func DtypeIn(m *layout.Model) func(l *layout.Layer) safetensors.Dtype {
	kept := keptDtype(m.Plain)
	return func(l *layout.Layer) safetensors.Dtype { return first(l.OrigDtype, kept) }
}

// stays reports whether a layer that is kept stays as it is stored.
func (s *Step) stays() bool { return len(s.Copies) > 0 }

// quantized reports whether the output has the weight as a quantized layer.
func (s *Step) quantized() bool { return s.Action == Quantize || s.stays() }

// scheme is how SDNQ stores the weight in the output, nil if it does not.
func (s *Step) scheme() *sdnq.Scheme {
	if s.stays() {
		return codec.Scheme(s.From.Codec)
	}
	return codec.Scheme(s.Codec)
}

// keepStored decides about a layer of the source that is kept: it stays as it
// is stored where the output's layout holds it so, else its values become plain.
func (d *decider) keepStored(s *Step) error {
	l := s.From
	if !d.canStay(l) || !d.comfyStays(s) || d.Merges[s.Source.Name] != nil {
		s.Codec = codec.Cast(s.Source.Shape, s.Source.Dtype)
		s.Reason += fmt.Sprintf("; restored from %s to %s", l.Dtype, s.Source.Dtype)
		return nil
	}
	for _, t := range l.Tensors {
		if l.FromHeader && layout.IsMetadata(t.Name) {
			continue
		}
		s.Copies = append(s.Copies, Copy{Source: t, Part: Part{Tensor: t.Tensor}})
	}
	s.Reason += "; stays as it is stored, " + l.Dtype
	s.Dtype, s.Options = l.Dtype, l.Options
	s.Format, _ = codec.ByName(l.Format)
	if d.Layout != layout.SDNQ {
		return nil
	}
	m, err := codec.Renamed(s.CodecSource(), l.Options, l.Codec)
	if err == nil {
		s.Settings = d.given.shared(m.Settings)
	}
	return err
}

// canStay: layers of the same layout, if the application that was named loads
// them.
func (d *decider) canStay(l *layout.Layer) bool {
	if l.Layout != d.Layout {
		return false
	}
	f, err := codec.ByName(l.Format)
	return err == nil && (d.For == nil || d.For.CheckLayer(f, l.Dtype) == nil)
}

// restorable refuses weights that are not what their layer's values are.
func restorable(l *layout.Layer) error {
	for _, t := range l.Tensors {
		if strings.HasSuffix(t.Name, layout.PreQuantScale) {
			return usage.SourceErrorf("layer %s has %s, which the loader multiplies into activations: its values alone are not its weight: start from the original", l.Name, t.Name)
		}
	}
	return nil
}

// admitStored lets SDNQ's rules pass the layers that stay as they are.
func (d *decider) admitStored(steps []Step, c *sdnqconfig.Config) {
	for i := range steps {
		s := &steps[i]
		scheme := s.scheme()
		if !s.stays() || scheme == nil {
			continue
		}
		c.MinNumel = min(c.MinNumel, s.Source.Numel())
		c.MinChannels = min(c.MinChannels, slices.Min(s.Source.Shape[:2]))
		switch scheme.Kind {
		case sdnq.Embedding:
			c.Turn("quant_embedding", true)
		case sdnq.Conv, sdnq.ConvTranspose:
			c.Turn("quant_conv", true)
		}
	}
}

// notesOnStored says what became of layers that were quantized already, and of
// their scales of activations.
func notesOnStored(steps []Step, o Options) []string {
	counts := map[string]int{}
	var all, stay, plain, inputs int
	for i := range steps {
		s := &steps[i]
		if s.From == nil || s.Action == Drop {
			continue
		}
		all++
		counts[s.From.Dtype]++
		if s.losesInputScale() {
			inputs++
		}
		switch {
		case s.stays():
			stay++
		case s.Action == Keep:
			plain++
		}
	}
	if all == 0 {
		return nil
	}
	var kinds []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		kinds = append(kinds, fmt.Sprintf("%d %s", counts[name], name))
	}
	note := fmt.Sprintf("the source has %s (%s), whose restored values are quantized", layers(all), strings.Join(kinds, ", "))
	if stay > 0 {
		note += fmt.Sprintf("; kept as stored: %d", stay)
	}
	if plain > 0 {
		note += fmt.Sprintf("; kept as plain weights, since %s does not take them as stored: %d", taker(o), plain)
	}
	notes := []string{note}
	if inputs > 0 {
		notes = append(notes, fmt.Sprintf("scales for activations are not kept, which the source has for %s", layers(inputs)))
	}
	return notes
}

// layers counts quantized layers.
func layers(n int) string {
	if n == 1 {
		return "1 quantized layer"
	}
	return fmt.Sprintf("%d quantized layers", n)
}

// taker is what must take layers: the application, if one was named.
func taker(o Options) string {
	if o.For != nil {
		return o.For.Name
	}
	return "the " + o.Layout.Name + " layout"
}

// losesInputScale reports whether the source has a scale of activations for the
// layer and the output has none.
func (s *Step) losesInputScale() bool {
	if s.stays() || !s.From.InputScaled() {
		return false
	}
	return s.Action == Keep || !slices.ContainsFunc(s.Codec.Tensors(), func(t tile.Tensor) bool { return t.Role == tile.InputScale })
}

// unscaled refuses 8-bit floats without a scale, unless they are to be taken
// for numbers.
func (d *decider) unscaled(t checkpoint.Tensor) error {
	if !layout.Float8(t.Dtype) || d.AcceptUnscaled {
		return nil
	}
	return usage.SourceErrorf("tensor %s is %s and has no scale: `AcceptUnscaledFP8` takes its values as plain numbers, `Keep` leaves it as it is", t.Name, t.Dtype)
}
