package plan

import (
	"strings"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/storage"
)

// base are the settings where nothing is said.
func (d *decider) base() codec.Settings {
	s := codec.Default()
	s.Dtype = "int8_tensorwise"
	if d.Layout == layout.SDNQ {
		s.Dtype = "int8"
	}
	return s
}

// settings of a layer: defaults, the config's, the flags', the rule's.
func (d *decider) settings(name string, rule *Rule) (codec.Settings, error) {
	s := d.flagged
	if d.Config != nil {
		c, err := d.Config.For(name)
		if err != nil {
			return s, usage.Errorf("tensor %s: %w", name, err)
		}
		if s, err = configured(d.base(), c); err != nil {
			return s, usage.Errorf("tensor %s: %w", name, err)
		}
		s = s.With(d.Flags)
	}
	if rule != nil {
		s = s.With(rule.Over)
	}
	return d.plainName(s), nil
}

// global are the settings of layers without any of their own.
func (d *decider) global() codec.Settings {
	s := d.base()
	if d.Config != nil {
		s, _ = configured(s, d.Config.Settings) // newDecider has tried it
	}
	return d.plainName(s.With(d.Flags))
}

// configured takes over what a config says, whose names are always SDNQ's.
func configured(s codec.Settings, c sdnqconfig.Settings) (codec.Settings, error) {
	s, err := s.FromConfig(c.Object())
	s.Dtype = "sdnq:" + s.Dtype
	return s, err
}

// plainName drops a prefix that only the comfy layout needs.
func (d *decider) plainName(s codec.Settings) codec.Settings {
	if d.Layout == layout.SDNQ {
		s.Dtype = strings.TrimPrefix(s.Dtype, "sdnq:")
	}
	return s
}

// inherit drops what a dtype has no use for and what was asked for with
// another: by flags before a rule's own dtype, by the config before the flags'.
func (d *decider) inherit(s codec.Settings, f *codec.Format, rule *Rule) codec.Settings {
	var own storage.Settings
	if rule != nil {
		own = rule.Over
	}
	if own.Dtype == "" && d.Flags.Dtype == "" {
		return s
	}
	return f.Without(s, func(one *codec.Field) bool {
		return one.Said(&own) || own.Dtype == "" && one.Said(&d.Flags)
	})
}
