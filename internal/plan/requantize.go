package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
)

// again plans a layer that cannot move, and why: it is quantized again, from
// the values that it restores to, in the nearest format. What no format there
// can hold becomes a plain tensor.
func (t *transcoding) again(s *Step, why error) error {
	src := codec.Source{Name: s.Layer, Shape: s.Source.Shape, Dtype: s.Source.Dtype}
	given, err := t.nearest(s.From, src)
	if err != nil {
		return err
	}
	s.Reason, s.Move = fmt.Sprintf("%s: %v", s.From.Dtype, why), nil
	if errors.Is(why, errExperts) {
		s.Action, s.Format, s.Dtype = Keep, nil, ""
		s.Codec = codec.Cast(src.Shape, src.Dtype)
		return nil
	}
	s.Settings, s.Dtype = t.given.shared(given), given.Dtype
	if s.Format, err = codec.Resolve(given.Dtype, t.o.Layout == layout.SDNQ); err != nil {
		return err
	}
	if s.Codec, s.Options, err = s.Format.Make(src, given); err == nil {
		s.Dtype = storedName(s)
		return nil
	}
	s.Action, s.Format, s.Dtype = Keep, nil, ""
	s.Reason += fmt.Sprintf("; %s: %v", given.Dtype, err)
	s.Codec = codec.Cast(src.Shape, src.Dtype)
	return nil
}

// nearest are the settings of a layer in the layout that it goes to.
func (t *transcoding) nearest(l *layout.Layer, src codec.Source) (codec.Settings, error) {
	apart := l.Apart != nil
	if apart {
		l = l.Apart.Like
	}
	if f := codec.Holding(l.Codec); f != nil && t.o.Layout == layout.Comfy {
		return codec.InNative(f, l.Codec), nil
	}
	if codec.IsPublished(l.Codec) {
		f, err := codec.ByName(app.Nearest(l.Dtype))
		if t.o.Layout == layout.SDNQ || err != nil {
			return codec.PublishedInSDNQ(l.Dtype, l.Codec, t.kind(src)), err
		}
		return codec.InNative(f, l.Codec), nil
	}
	stored, err := codec.ByName(l.Format)
	if err != nil {
		return codec.Settings{}, err
	}
	if apart && stored == codec.SDNQ() && t.staysSDNQ(stored, l.Dtype) {
		given, err := codec.SaidOf(l.Options, l.Codec)
		given.Dtype = "sdnq:" + given.Dtype
		return given, err
	}
	if t.o.Layout == layout.SDNQ {
		return codec.InSDNQ(stored, l.Options, l.Codec, t.kind(src)), nil
	}
	f, err := codec.ByName(app.Nearest(l.Dtype))
	return codec.InNative(f, l.Codec), err
}

// staysSDNQ reports whether layers of SDNQ's are layers of SDNQ's in the output.
func (t *transcoding) staysSDNQ(stored *codec.Format, dtype string) bool {
	return (t.Rename || t.o.Layout == layout.SDNQ) && (t.o.For == nil || t.o.For.CheckLayer(stored, dtype) == nil)
}

// againNotes says of which layers the codes did not move.
func againNotes(steps []Step) []string {
	var again, plain reasons
	for i := range steps {
		s := &steps[i]
		switch {
		case s.From == nil || s.Move != nil:
		case s.Action == Quantize:
			again.add(s.Layer, fmt.Sprintf("to %s, since %s", s.Dtype, s.Reason))
		default:
			plain.add(s.Layer, s.Reason)
		}
	}
	var notes []string
	for _, r := range again {
		notes = append(notes, fmt.Sprintf("quantized again, from restored values: %v", r))
	}
	for _, r := range plain {
		notes = append(notes, fmt.Sprintf("restored to plain tensors: %v", r))
	}
	return notes
}

// reasons are what was said of layers, in the order in which it first was.
type reasons []reason

type reason struct {
	text   string
	layers []string
}

func (all *reasons) add(layer, text string) {
	i := slices.IndexFunc(*all, func(r reason) bool { return r.text == text })
	if i < 0 {
		i = len(*all)
		*all = append(*all, reason{text: text})
	}
	(*all)[i].layers = append((*all)[i].layers, layer)
}

func (all reasons) layers() (n int) {
	for _, r := range all {
		n += len(r.layers)
	}
	return n
}

func (all reasons) String() string {
	var texts []string
	for _, r := range all {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, "; ")
}

// String names the first layers and counts the others.
func (r reason) String() string {
	const most = 4
	names := strings.Join(r.layers[:min(len(r.layers), most)], ", ")
	if n := len(r.layers) - most; n > 0 {
		names += fmt.Sprintf(" and %d more", n)
	}
	return names + " (" + r.text + ")"
}
