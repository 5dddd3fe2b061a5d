package plan

import (
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// resolve gives the step its format and returns its settings. Neighbours most
// often follow the same, which are not worked out again.
func (d *decider) resolve(s *Step, kind preset.Kind, rule *Rule) (codec.Settings, error) {
	from, err := d.settings(s.memoryName(), rule)
	if err != nil {
		return from, err
	}
	from.Kind = quantKinds[kind]
	if r := &d.resolved; r.format == nil || r.rule != rule || r.from != from {
		*r = resolved{rule: rule, from: from}
		f, err := codec.Resolve(from.Dtype, d.Layout == layout.SDNQ)
		if err != nil {
			return from, usage.Errorf("layer %s: %w", s.Layer, err)
		}
		r.format = f.Scaled(from.Scale)
		r.settings = d.inherit(from, r.format, rule)
	}
	s.Format = d.resolved.format
	return d.resolved.settings, nil
}

// resolved is what settings and a rule came to.
type resolved struct {
	rule     *Rule
	from     codec.Settings
	settings codec.Settings
	format   *codec.Format
}

// givenSettings has settings once that many layers have.
type givenSettings struct {
	all  map[codec.Settings]*codec.Settings
	last *codec.Settings // neighbours most often have the same
}

func (g *givenSettings) shared(s codec.Settings) *codec.Settings {
	if g.last != nil && *g.last == s {
		return g.last
	}
	g.last = g.all[s]
	if g.last == nil {
		g.last = new(codec.Settings)
		*g.last = s
		if g.all == nil {
			g.all = map[codec.Settings]*codec.Settings{}
		}
		g.all[s] = g.last
	}
	return g.last
}

// unset are the settings of what is not quantized.
var unset codec.Settings

// check is that of the format, for a layer unlike the one before.
func (d *decider) check(f *codec.Format, given *codec.Settings) error {
	if d.checked.format == f && d.checked.settings == *given {
		return nil
	}
	d.checked.format, d.checked.settings = f, *given
	return f.Check(*given)
}

// made tells codecs apart that layers can share.
type made struct {
	format   *codec.Format
	settings codec.Settings
	dtype    safetensors.Dtype
	shape    [8]int
	rank     int
	moments  *float32 // the first of those that its errors are weighed by
}

// make is that of the format. Layers of one shape share a codec: models repeat
// a few shapes many times.
func (d *decider) make(f *codec.Format, src codec.Source, s codec.Settings) (codec.Codec, pyjson.Object, error) {
	key := made{format: f, settings: s, dtype: src.Dtype, rank: len(src.Shape), moments: firstOf(src.Moments)}
	if s.StochasticRounding || copy(key.shape[:], src.Shape) < len(src.Shape) { // chances follow from the name
		return f.Make(src, s)
	}
	if m, ok := d.made[key]; ok {
		return m.codec, m.options, nil
	}
	c, o, err := f.Make(src, s)
	if err == nil {
		d.made[key] = shared{c, o}
	}
	return c, o, err
}

// shared is what layers have in common. Options must not be changed in place.
type shared struct {
	codec   codec.Codec
	options pyjson.Object
}
