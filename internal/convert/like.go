package convert

import (
	"regexp"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/storage"
)

// likeModel takes the settings of a quantized model, layer by layer: its config, or
// what its layers say of themselves. All else is kept.
func (o request) likeModel(p *plan.Options) error {
	if o.like == nil {
		return nil
	}
	if o.Config != "" {
		return usage.Errorf("`Like` and `Config` both say how layers are stored: give one")
	}
	c, err := checkpoint.Open(*o.like)
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := layout.Read(c, nil)
	if err != nil {
		return usage.AsSource(err)
	}
	if len(m.Layers) == 0 {
		return usage.SourceErrorf("%s holds no quantized layer to do like", o.like.Path)
	}
	if m.Config != nil {
		p.Config = m.Config
		p.Config.AddSkipKeys = false // its list has all that is kept
		return nil
	}
	return likeLayers(p, m)
}

// likeLayers makes a rule of each layer that describes itself.
func likeLayers(p *plan.Options, m *layout.Model) error {
	for _, l := range m.Layers {
		expr := "^" + regexp.QuoteMeta(layout.WeightName(l.Name)) + "$"
		found, err := pattern.Compile(expr)
		if err != nil {
			return err
		}
		given, err := settingsOf(l)
		if err != nil {
			return usage.SourceErrorf("%s: layer %s: %w", m.Checkpoint.Path, l.Name, err)
		}
		p.Set = append(p.Set, plan.Rule{Text: "like " + l.Name, Pattern: found, Over: given, Kind: kindOf(l)})
		p.Only = append(p.Only, found)
	}
	return nil
}

func settingsOf(l *layout.Layer) (given storage.Settings, err error) {
	if l.Err != nil {
		return given, l.Err
	}
	if l.Format != codec.SDNQ().Name {
		f, err := codec.ByName(l.Format)
		if err != nil {
			return given, err
		}
		return f.SettingsFromMetadata(l.Options, l.Codec), nil
	}
	s, err := codec.Said(l.Options, l.Codec)
	if err != nil {
		return given, err
	}
	s.Dtype = "sdnq:" + s.Dtype
	return s.Given(), nil
}

func kindOf(l *layout.Layer) string {
	v, ok := l.Options.Get("kind")
	if !ok {
		return "linear"
	}
	name, _ := v.(string)
	return strings.ReplaceAll(name, "_", "-")
}
