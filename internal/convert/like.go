package convert

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/renamed"
	"github.com/tensorpress/tensorpress/internal/source"
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
	named, err := o.namedAs(m)
	if err != nil {
		return err
	}
	if named != m {
		return likeLayers(p, named)
	}
	if m.Config != nil {
		p.Config = m.Config
		p.Config.AddSkipKeys = false // its list has all that is kept
		return nil
	}
	return likeLayers(p, m)
}

// likeFiles are those that tell how layers are stored as another model's are: its config,
// and its weights, in whose headers the layers are.
func (j *job) likeFiles() (all []source.Source) {
	models := []*source.Source{j.asked.like}
	for _, one := range j.Models {
		models = append(models, one.Like)
	}
	for _, like := range models {
		if like == nil || j.IsPipeline() && like == j.asked.like {
			continue
		}
		c, err := checkpoint.Open(*like)
		if err != nil {
			continue // whoever reads it says so
		}
		all = append(all, weightFiles(c)...)
		if c.IsModel() {
			all = append(all, c.Beside("config.json"), c.Beside(layout.ConfigFile))
		}
		c.Close()
	}
	return all
}

// namedAs is a quantized model with the names of the output, m itself where it has them,
// or none that are known.
func (o request) namedAs(m *layout.Model) (*layout.Model, error) {
	if !o.as.asked || m.Failed() != nil {
		return m, nil
	}
	named, _, err := renamed.Model(m, renamed.Options{To: o.as.Side, Dtype: plan.DtypeIn(m)})
	switch {
	case errors.Is(err, names.ErrUnknown):
		return m, nil
	case err != nil:
		return nil, fmt.Errorf("`Like`: %w", err)
	}
	return named, nil
}

// likeLayers makes a rule of each layer.
func likeLayers(p *plan.Options, m *layout.Model) error {
	for _, l := range m.Layers {
		stored := l
		if l.Apart != nil {
			stored = l.Apart.Like
		}
		expr := "^" + regexp.QuoteMeta(l.WeightName()) + "$"
		found, err := pattern.Compile(expr)
		if err != nil {
			return err
		}
		given, err := settingsOf(stored)
		if err != nil {
			return usage.SourceErrorf("%s: layer %s: %w", m.Checkpoint.Path, l.Name, err)
		}
		p.Set = append(p.Set, plan.Rule{Text: "like " + l.Name, Pattern: found, Over: given, Kind: kindOf(stored)})
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
	s.Dynamic = false // what it chose is the dtype
	return s.Given(), nil
}

// kindOf is the kind of a layer in the words of rules.
func kindOf(l *layout.Layer) string {
	kind := ""
	if s := codec.Scheme(l.Codec); s != nil {
		kind = strings.ReplaceAll(codec.KindName(s), "_", "-")
	}
	return cmp.Or(kind, "linear")
}
