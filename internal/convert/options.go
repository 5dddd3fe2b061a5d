package convert

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/ctq"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/storage"
)

// Options are tensorpress.Options, whose comments say what each is; one is converted
// to the other.
type Options struct {
	Layer                storage.Settings
	Rules                []storage.Rule
	Keep, Only           []string
	Layout               string
	Names                string
	Preset               string
	Conv                 bool
	Embedding            bool
	SkipKeys             *bool
	MinNumel             *int
	MinChannels          *int
	Config               string
	Like                 files.Source
	LayerConfig          string
	Importance           string
	Lora                 []string
	LoraPartial          bool
	For                  string
	Fit                  int64
	AcceptUnscaledFP8    bool
	QuantizationMetadata bool
	ShardSize            int64
	Force                bool
	CopyWeights          bool
	Resume               bool
	Part                 int
	Parts                int
	Measure              bool
	Hash                 bool
	Budget               int64
	BudgetShare          float64
	TargetBPW            float64
	Menu                 []storage.Candidate
	Measured             *report.Measurement
	Fingerprint          string
	Threads              int
	Memory               int64
	Progress             func(done, total int64)
}

func (o Options) resources() engine.Resources {
	return engine.Resources{Threads: o.Threads, Memory: o.Memory, Progress: o.Progress}
}

// request is a quantization; ctq is the command of convert_to_quant whose rules are
// followed, nil for none.
type request struct {
	Options
	ctq  *ctq.Command
	like *source.Source // nil where Like is
	as   naming
	// moments are those of `Importance`, while a model is planned.
	moments *plan.Moments
	// adapters are those of `Lora`, nil for none.
	adapters *lora.Set
	// trying says that a plan is of an entry of a menu.
	trying bool
	// planned says that nothing is written after a choice.
	planned bool
	// opened is what other outputs of the run have open, nil where there is one output.
	opened *opened
	// component is the folder of a pipeline that a plan is for, "" for one model.
	component string
}

const defaultShardSize = 5_000_000_000

// planOptions compiles what the user said.
func (o request) planOptions(c *checkpoint.Checkpoint, tensors []checkpoint.Tensor, out plan.Output) (plan.Options, error) {
	p := plan.Options{
		Flags: o.Layer, AcceptUnscaled: o.AcceptUnscaledFP8, Header: o.QuantizationMetadata,
		MinNumel: o.MinNumel, MinChannels: o.MinChannels, Output: out, Component: o.component,
	}
	for _, fill := range []func(*plan.Options) error{o.patterns, o.rules, o.config, o.likeModel, o.layerConfig, o.application} {
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
	for _, one := range o.Rules {
		r, err := plan.NewRule(one)
		if err != nil {
			return err
		}
		p.Set = append(p.Set, r)
	}
	return nil
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
func parseConfig(text []byte) (*sdnqconfig.Config, error) {
	o, err := pyjson.ParseObject(text)
	if err != nil {
		return nil, fmt.Errorf("SDNQ config: %w", err)
	}
	if inner, ok := o.Get("quantization_config"); ok {
		if o, ok = inner.(pyjson.Object); !ok {
			return nil, errors.New("quantization_config: want an object")
		}
	}
	if err := sdnqconfig.CheckKeys(o); err != nil {
		return nil, err
	}
	return sdnqconfig.FromObject(o)
}

func (o Options) application(p *plan.Options) (err error) {
	if o.For != "" {
		p.For, err = app.ByName(o.For)
	}
	if err != nil || !o.choosesBest() {
		return err
	}
	best, err := p.For.BestAt(*o.Layer.Bits)
	if err != nil {
		return err
	}
	given := o.Layer
	given.Bits = nil
	p.Flags, p.Instead = over(best.Settings, given), best.Instead
	return nil
}

// over returns settings with those that were said in their place.
func over(s, said storage.Settings) storage.Settings {
	to, from := reflect.ValueOf(&s).Elem(), reflect.ValueOf(said)
	for i := range to.NumField() {
		if v := from.Field(i); !v.IsZero() {
			to.Field(i).Set(v)
		}
	}
	return s
}

// choosesBest reports whether the application's best at a number of bits is asked for.
func (o Options) choosesBest() bool { return o.For != "" && o.Layer.Bits != nil && !o.namesDtype() }

// namesDtype reports whether something says how layers are stored, be it a dtype of which
// bits are a setting.
func (o Options) namesDtype() bool {
	return o.Layer.Dtype != "" || o.Config != "" || o.Like != nil || o.LayerConfig != ""
}

// layout is what was asked for, else that of the application among whose dtypes is
// chosen, else SDNQ's where a model's config is there.
func (o request) layout(p *plan.Options, c *checkpoint.Checkpoint) (err error) {
	p.Layout = layout.Comfy
	if c.IsModel() && c.Config != nil && !o.as.forComfyUI() {
		p.Layout = layout.SDNQ
	}
	name := o.Layout
	if name == "" && (o.choosesBest() || p.For != nil && o.chooses()) { // what an application loads is of its layout
		name = p.For.Layout
	}
	if name != "" {
		p.Layout, err = layout.ByName(name)
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
	if o.Layer.ExactReference != nil && *o.Layer.ExactReference {
		p.Preset = p.Preset.AsReference()
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
