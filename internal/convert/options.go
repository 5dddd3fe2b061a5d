package convert

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"strings"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/ctq"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnq"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// Options are the decisions of a conversion; the zero value takes the defaults.
// Pointers are nil where nothing was said, since a config may say it then.
type Options struct {
	Layout string // "sdnq" or "comfy"; "" by the source
	Dtype  *string
	// GroupSize of SDNQ dtypes: 0 automatic, -1 one per row, -2 one per tensor;
	// of asym_w4a8_int8 and awq_w4a16: values.
	GroupSize *int
	Scale     *string // "tensor", "row" or "block", for ComfyUI's formats
	// DequantizeFP32 keeps SDNQ's scales in F32, the default.
	DequantizeFP32 *bool
	ExactReference bool
	AllowNonfinite bool
	// Settings are further ones by the names of their flags, see [SettingFlags]:
	// strings, ints and bools.
	Settings map[string]any

	Keep, Only []string // patterns
	Set        []string // PATTERN=SETTINGS
	Preset     string   // "" or "auto" for the family that is recognised
	Conv       bool     // quantize convolutions too
	Embedding  bool     // quantize embeddings too
	SkipKeys   *bool    // SDNQ's own list, default true
	Config     string   // path of an SDNQ config
	Like       string   // path of a quantized model whose settings are taken
	// LayerConfig is the path of a layer config of convert_to_quant's.
	LayerConfig string
	// QuantizationMetadata describes the layers in the header too, in the comfy
	// layout.
	QuantizationMetadata bool
	For                  string // an application

	MinNumel, MinChannels *int
	ShardSize             int64 // bytes, 0 for 5 GB

	// AcceptUnscaledFP8 takes 8-bit floats without any scale for plain numbers.
	AcceptUnscaledFP8 bool

	Force bool
	// CopyWeights copies weights beside those that are read, too.
	CopyWeights bool

	ctq *ctq.Command // whose rules are followed
	// Measure adds the error of every layer to the report: what was written is
	// read once more, with the source, in tiles, before it is at dest.
	Measure bool
	engine.Resources
}

const defaultShardSize = 5_000_000_000

// planOptions compiles what the user said.
func (o Options) planOptions(c *checkpoint.Checkpoint, tensors []checkpoint.Tensor, out plan.Output) (plan.Options, error) {
	p := plan.Options{
		Flags: o.given(), AcceptUnscaled: o.AcceptUnscaledFP8, Header: o.QuantizationMetadata,
		MinNumel: o.MinNumel, MinChannels: o.MinChannels, Output: out,
	}
	if err := codec.CheckGiven(p.Flags); err != nil {
		return p, usage.Wrap(err)
	}
	for _, fill := range []func(*plan.Options) error{o.patterns, o.rules, o.config, o.like, o.layerConfig, o.application} {
		if err := fill(&p); err != nil {
			return p, err
		}
	}
	if err := o.layout(&p, c); err != nil {
		return p, err
	}
	if err := o.convertToQuant(&p, tensors); err != nil {
		return p, err
	}
	if o.ctq == nil { // which does as it is told
		p.Addon, p.AddonSign = preset.AddonOf(c.Metadata, shapes(tensors))
	}
	return p, o.preset(&p, rawConfig(c.Config), tensors)
}

// given collects the settings of layers.
func (o Options) given() plan.Overrides {
	g := plan.Overrides{"exact-reference": o.ExactReference, "allow-nonfinite": o.AllowNonfinite}
	maps.Copy(g, o.Settings)
	put(g, "dtype", o.Dtype)
	put(g, "group-size", o.GroupSize)
	put(g, "scale", o.Scale)
	put(g, "dequantize-fp32", o.DequantizeFP32)
	return g
}

func put[T any](g plan.Overrides, flag string, v *T) {
	if v != nil {
		g[flag] = *v
	}
}

func (o Options) patterns(p *plan.Options) (err error) {
	if p.Keep, err = compile(o.Keep); err == nil {
		p.Only, err = compile(o.Only)
	}
	return usage.Wrap(err)
}

func compile(texts []string) ([]*pattern.Pattern, error) {
	var patterns []*pattern.Pattern
	for _, text := range texts {
		p, err := pattern.Compile(text)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

func (o Options) rules(p *plan.Options) error {
	for _, text := range o.Set {
		r, err := plan.ParseRule(text)
		if err != nil {
			return err
		}
		p.Set = append(p.Set, r)
	}
	return nil
}

// CheckSet returns an error, an [ErrUsage], if the text is no entry of
// [Options.Set].
func CheckSet(text string) error {
	_, err := plan.ParseRule(text)
	return err
}

// CheckPattern returns an error, an [ErrUsage], if the text is no entry of
// [Options.Keep] and [Options.Only].
func CheckPattern(text string) error {
	_, err := pattern.Compile(text)
	return usage.Wrap(err)
}

func (o Options) config(p *plan.Options) error {
	if o.Config == "" {
		return nil
	}
	text, err := checkpoint.ReadFile(o.Config, checkpoint.MaxText)
	if err != nil {
		return err
	}
	if p.Config, err = parseConfig(text); err != nil {
		return usage.Errorf("%s: %w", o.Config, err)
	}
	return nil
}

// parseConfig reads an SDNQ config, alone or in a model's config.json.
func parseConfig(text []byte) (*sdnq.Config, error) {
	o, err := pyjson.ParseObject(text)
	if err != nil {
		return nil, fmt.Errorf("SDNQ config: %w", err)
	}
	if inner, ok := o.Get("quantization_config"); ok {
		if o, ok = inner.(pyjson.Object); !ok {
			return nil, errors.New("quantization_config: want an object")
		}
	}
	if err := sdnq.CheckKeys(o); err != nil {
		return nil, err
	}
	return sdnq.FromObject(o)
}

func (o Options) application(p *plan.Options) (err error) {
	if o.For != "" {
		p.For, err = app.ByName(o.For)
	}
	return err
}

// layout is what was asked for, else SDNQ's where a model's config is there.
func (o Options) layout(p *plan.Options, c *checkpoint.Checkpoint) (err error) {
	p.Layout = layout.Comfy
	if c.IsModel() && c.Config != nil {
		p.Layout = layout.SDNQ
	}
	if o.Layout != "" {
		p.Layout, err = layout.ByName(o.Layout)
	}
	return usage.Wrap(err)
}

// preset is the row of the name, or the one that the checkpoint is recognised
// by, made to fit it.
func (o Options) preset(p *plan.Options, config map[string]json.RawMessage, tensors []checkpoint.Tensor) (err error) {
	p.Conv, p.Embedding = o.Conv, o.Embedding
	if o.Preset == "" || o.Preset == "auto" {
		p.Preset, p.Recognised = preset.Recognise(config, shapes(tensors))
	} else if p.Preset, err = preset.ByName(o.Preset); err != nil {
		return usage.Wrap(err)
	} else if o.Preset != "none" {
		p.Preset = p.Preset.For(config, shapes(tensors))
	}
	if o.SkipKeys != nil && p.Layout != layout.SDNQ {
		return usage.Errorf("`SkipKeys` is SDNQ's list, for the sdnq layout: use `Preset` none to keep nothing")
	}
	p.SkipKeys = o.Preset != "none" && (o.SkipKeys == nil || *o.SkipKeys)
	return nil
}

func rawConfig(o pyjson.Object) map[string]json.RawMessage {
	if o == nil {
		return nil
	}
	raw := map[string]json.RawMessage{}
	for _, m := range o {
		raw[m.Key] = json.RawMessage(pyjson.Dump(m.Value))
	}
	return raw
}

func shapes(tensors []checkpoint.Tensor) iter.Seq2[string, []int] {
	return func(yield func(string, []int) bool) {
		for _, t := range tensors {
			if !yield(t.Name, t.Shape) {
				return
			}
		}
	}
}

// outputOf tells the shape of a destination: a file where its name says so,
// else a folder, for sources that are folders or shards.
func outputOf(c *checkpoint.Checkpoint, dest string, shardSize int64) (plan.Output, error) {
	stem, isFile := strings.CutSuffix(filepath.Base(dest), ".safetensors")
	single := !c.IsDir && !c.Sharded
	if dest == "" && single {
		isFile, stem = true, "output"
	}
	switch {
	case isFile && shardSize != 0:
		return plan.Output{}, usage.Errorf("`ShardSize` splits a folder's weights; the output is one file")
	case isFile:
		return plan.Output{Stem: stem, Metadata: c.Metadata}, nil
	case single:
		return plan.Output{}, usage.Errorf("%s must end in .safetensors, since the source is one file", dest)
	}
	return plan.Output{
		Folder: true, Stem: c.Stem(), Metadata: c.Metadata, ShardSize: cmp.Or(shardSize, defaultShardSize),
	}, nil
}
