package plan

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/importance"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// decider decides about one tensor at a time and remembers which patterns
// matched anything.
type decider struct {
	Options
	flagged  codec.Settings // of layers without a config's or a rule's
	skip     []string       // the config's list
	listKeys bool           // the preset's list is in effect
	used     map[string]bool
	followed map[string]error // by the text of a rule with a dtype: nil where it quantizes a layer
	made     map[made]shared
	given    givenSettings
	resolved resolved // the last
	checked  made     // the last format and settings that go together
	cannot   []string // layers that their dtype cannot hold
	kept     safetensors.Dtype
	total    int64 // bytes of all tensors
	moments  *importance.Match
	comfy    *app.ComfyModel // what ComfyUI takes the model for, in its layout
	minNumel int
	minWidth int
}

func newDecider(o Options) (*decider, error) {
	d := &decider{Options: o, used: map[string]bool{}, followed: map[string]error{}}
	d.flagged = d.base().With(o.Flags)
	if o.Config != nil {
		if err := o.Config.Check(); err != nil {
			return nil, usage.Wrap(err)
		}
		if _, err := configured(d.base(), o.Config.Settings); err != nil {
			return nil, usage.Wrap(err)
		}
		d.skip = append(d.skip, o.Config.NotConvert...)
		d.Conv = d.Conv || o.Config.Has("quant_conv")
		d.Embedding = d.Embedding || o.Config.Has("quant_embedding")
	}
	addKeys := o.Config == nil || o.Config.AddSkipKeys
	d.listKeys = o.Layout == layout.SDNQ && o.SkipKeys && addKeys
	d.minNumel, d.minWidth = minimums(o)
	return d, d.checkGlobal()
}

// minimums are SDNQ's where its layout or its config is used, else none.
func minimums(o Options) (numel, channels int) {
	if o.Config != nil {
		numel, channels = o.Config.MinNumel, o.Config.MinChannels
	} else if o.Layout == layout.SDNQ {
		def := sdnqconfig.Default()
		numel, channels = def.MinNumel, def.MinChannels
	}
	if o.MinNumel != nil {
		numel = *o.MinNumel
	}
	if o.MinChannels != nil {
		channels = *o.MinChannels
	}
	return numel, channels
}

// exact reports whether the reference's bytes are asked for.
func (d *decider) exact() bool { return d.flagged.ExactReference }

// checkGlobal refuses flags that no layer could follow.
func (d *decider) checkGlobal() error {
	s := d.global()
	f, err := codec.Resolve(s.Dtype, d.Layout == layout.SDNQ)
	if err == nil {
		f = f.Scaled(s.Scale)
		err = f.Check(d.inherit(s, f, nil))
	}
	return usage.Wrap(err)
}

func (d *decider) step(s *Step, t checkpoint.Tensor) error {
	layer, isWeight := strings.CutSuffix(t.Name, ".weight")
	*s = Step{Source: t, Layer: layer, Action: Keep, Names: d.Preset.MemoryNames(t.Name), Settings: &unset, From: d.Stored[t.Name], kept: d.kept}
	if d.Layout == layout.Comfy && d.Preset.Drop(t.Name) {
		s.Action, s.Reason = Drop, "preset "+d.Preset.Name+" leaves it out"
		return nil
	}
	soft, err := d.listRule(t, isWeight)
	if err != nil {
		return err
	}
	if soft != nil && soft.Drop {
		s.Action, s.Reason = Drop, soft.Why
		return nil
	}
	if !isWeight {
		if s.Reason = d.noWeight(s); s.From == nil {
			return nil
		}
		return d.finish(s)
	}
	rule, keep, err := d.asked(t.Name)
	if err != nil {
		return err
	}
	forced := rule != nil && rule.Over.Dtype != ""
	s.Ruled = forced || keep != ""
	if rule == nil && keep == "" {
		keep = d.partOfAddon()
	}
	if rule != nil || keep != "" {
		soft = nil
	}
	if soft != nil {
		rule, keep = soft.rule()
	}
	kind := d.kind(t, rule)
	if keep == "" {
		keep = d.unfit(t, kind)
	}
	if keep == "" && !forced && soft == nil {
		keep = d.listed(s, kind)
	}
	if keep == "" {
		keep = d.unasked(s, kind, rule)
	}
	if keep == "" {
		if err := d.unscaled(t); err != nil {
			return err
		}
		keep, err = d.quantize(s, kind, rule)
		if err != nil {
			return err
		}
	}
	if forced {
		if err := d.follow(rule, t, keep); err != nil {
			return err
		}
	}
	s.Reason = keep
	if soft != nil {
		if err := soft.check(s); err != nil {
			return err
		}
	}
	return d.finish(s)
}

// follow refuses a layer that the dtype of a rule cannot quantize. A norm that the
// pattern takes in beside layers (attn.norm_k by \.attn\.) is no layer; a pattern
// that takes in nothing else is an error when all is decided.
func (d *decider) follow(rule *Rule, t checkpoint.Tensor, keep string) error {
	if keep == "" {
		d.followed[rule.Text] = nil
		return nil
	}
	err := usage.Errorf("`Rules` %s: tensor %s cannot be quantized: %s", rule.Text, t.Name, keep)
	if len(t.Shape) > 1 {
		return err
	}
	if _, known := d.followed[rule.Text]; !known {
		d.followed[rule.Text] = err
	}
	return nil
}

// followAs adds how rules were followed elsewhere: a layer that one quantizes counts
// before what cannot be, and of those the first.
func (d *decider) followAs(followed map[string]error) {
	for text, err := range followed {
		if _, known := d.followed[text]; !known || err == nil {
			d.followed[text] = err
		}
	}
}

// partOfAddon keeps what no user has asked for of a source that is no model.
func (d *decider) partOfAddon() string {
	if d.Addon == "" || len(d.Only) > 0 {
		return ""
	}
	return "part of " + d.Addon
}

// finish sees to weights that are kept, and to layers that are restored.
func (d *decider) finish(s *Step) error {
	if s.Action == Keep && s.From != nil {
		if err := d.keepStored(s); err != nil {
			return err
		}
	}
	if s.Action == Keep && !s.stays() {
		d.castKept(s)
	}
	if s.From != nil && !s.stays() {
		return restorable(s.From)
	}
	return nil
}

// kind is what a rule says, else what the family, name and shape tell. In the
// comfy layout every matrix counts as linear, as in convert_to_quant, unless
// embeddings are asked for as such.
func (d *decider) kind(t checkpoint.Tensor, rule *Rule) preset.Kind {
	if rule != nil && rule.Kind != "" {
		return preset.Kind(rule.Kind)
	}
	if d.isBank(t) {
		return preset.Linear
	}
	k := d.Preset.Kind(t.Name, t.Shape)
	if d.Layout == layout.Comfy && len(t.Shape) == 2 && (k != preset.Embedded || !d.Embedding) {
		return preset.Linear
	}
	return k
}

// asked returns the first --set rule for a name, and why the user's patterns
// keep it.
func (d *decider) asked(name string) (rule *Rule, keep string, err error) {
	kept, err := d.first(d.Keep, name)
	if err != nil {
		return nil, "", err
	}
	if rule, err = d.firstRule(name); err != nil {
		return nil, "", err
	}
	only, err := d.first(d.Only, name)
	if err != nil {
		return nil, "", err
	}
	if kept != nil {
		return nil, fmt.Sprintf("`Keep` %v", kept), nil
	}
	if rule != nil && rule.Keep {
		return nil, "`Rules` " + rule.Text, nil
	}
	if len(d.Only) > 0 && only == nil {
		return nil, "not in `Only`", nil
	}
	return rule, "", nil
}

// firstRule and first try every pattern, so that one whose matches an earlier
// one takes does not count as one that matches nothing.
func (d *decider) firstRule(name string) (rule *Rule, err error) {
	for i, r := range d.Set {
		found, err := d.matches(r.Pattern, name)
		if err != nil {
			return nil, err
		}
		if found {
			d.used[r.Text] = true
			rule = cmp.Or(rule, &d.Set[i])
		}
	}
	return rule, nil
}

// matches reports whether a pattern finds a name, or the name that it has in a pipeline.
func (d *decider) matches(p *pattern.Pattern, name string) (bool, error) {
	found, err := p.Match(name)
	if err == nil && !found && d.Component != "" {
		found, err = p.Match(d.Component + "/" + name)
	}
	return found, usage.Wrap(err)
}

func (d *decider) first(patterns []*pattern.Pattern, name string) (match *pattern.Pattern, err error) {
	for _, p := range patterns {
		found, err := d.matches(p, name)
		if err != nil {
			return nil, err
		}
		if found {
			d.used[p.String()] = true
			match = cmp.Or(match, p)
		}
	}
	return match, nil
}

// unfit says why a tensor is not quantized whatever its name.
func (d *decider) unfit(t checkpoint.Tensor, k preset.Kind) string {
	switch {
	case isMatrices(t) && d.banks() && k == preset.Linear: // a bank, by its name or by a rule
	case isMatrices(t) && expertNames.MatchString(t.Name):
		return d.fused(t)
	case len(t.Shape) < 2 || len(t.Shape) > 2 && !k.Conv():
		return dimensions(len(t.Shape)) + ", not 2"
	case t.Numel() == 0:
		return "empty"
	case !codec.Numbers(t.Dtype):
		return fmt.Sprintf("%s is not F32, BF16 or F16", t.Dtype)
	case !k.Quantizable(true, true):
		return "no layer that SDNQ quantizes"
	}
	return ""
}

func dimensions(n int) string {
	if n == 1 {
		return "1 dimension"
	}
	return fmt.Sprintf("%d dimensions", n)
}

// unasked says which flag a kind of layer is quantized by, where it was not given
// and nothing else keeps the layer.
func (d *decider) unasked(s *Step, k preset.Kind, rule *Rule) string {
	switch {
	case k.Quantizable(d.Conv, d.Embedding):
		return ""
	case k == preset.Embedded && rule != nil && rule.Kind != "":
		return "an embedding, which `Embedding` quantizes"
	case k == preset.Embedded:
		return "an embedding by its name, which `Embedding` quantizes"
	}
	if _, err := d.resolve(s, k, rule); err == nil && s.Format != codec.SDNQ() {
		name := s.Format.Name
		s.Format = nil
		return "a convolution, which " + name + " does not hold"
	}
	s.Format = nil
	return "a convolution, which `Conv` quantizes"
}

// listed says which list or minimum keeps a weight.
func (d *decider) listed(s *Step, k preset.Kind) string {
	t := s.Source
	if entry, ok := sdnqconfig.Match(s.memoryName(), d.skip); ok {
		return "skip key " + entry
	}
	if d.listKeys {
		if entry, ok := d.Preset.Skip(t.Name); ok {
			return "skip key " + entry
		}
		if d.Preset.Predicts(t.Name) {
			return "multi-token prediction, which transformers does not load; " + d.share(t)
		}
	}
	if d.Layout == layout.Comfy {
		rows, columns := t.Shape[0], t.Numel()/t.Shape[0]
		if d.isBank(t) {
			rows, columns = t.Shape[1], t.Shape[2]
		}
		if why := d.Preset.Keep(t.Name, rows, columns); why != "" {
			return why
		}
	}
	if t.Numel() < d.minNumel {
		return fmt.Sprintf("%d values, fewer than %d", t.Numel(), d.minNumel)
	}
	if n := k.Channels(t.Shape); n < d.minWidth {
		what := "columns"
		if k.Conv() {
			what = "channels"
		}
		return fmt.Sprintf("%d %s, fewer than %d", n, what, d.minWidth)
	}
	return ""
}

// memoryName is the weight's name in the loaded model.
func (s *Step) memoryName() string {
	if len(s.Names) > 0 {
		return s.Names[0]
	}
	return s.Source.Name
}

// quantKinds are the kinds as the arithmetic knows them.
var quantKinds = map[preset.Kind]sdnq.Kind{
	preset.Embedded: sdnq.Embedding,
	preset.Conv1d:   sdnq.Conv, preset.Conv2d: sdnq.Conv, preset.Conv3d: sdnq.Conv,
	preset.ConvTranspose1d: sdnq.ConvTranspose, preset.ConvTranspose2d: sdnq.ConvTranspose, preset.ConvTranspose3d: sdnq.ConvTranspose,
}

// quantize gives the step its codec, or returns why the dtype cannot hold it.
func (d *decider) quantize(s *Step, kind preset.Kind, rule *Rule) (keep string, err error) {
	given, err := d.resolve(s, kind, rule)
	if err != nil {
		return "", err
	}
	keep, err = d.store(s, &given)
	if err == nil && s.Codec == nil && keep != "" && d.Instead != nil && rule == nil {
		given, keep, err = d.storeInstead(s, given.Kind, keep)
	}
	s.Settings = d.given.shared(given)
	if err == nil && keep == "" {
		if keep = d.comfyKeeps(s, rule); keep != "" {
			s.unmake()
		}
	}
	return keep, err
}

// storeInstead stores a layer that its dtype cannot hold by the settings for such
// layers; keep is why it could not be held.
func (d *decider) storeInstead(s *Step, kind sdnq.Kind, keep string) (codec.Settings, string, error) {
	given := codec.Default().With(*d.Instead)
	given.Kind = kind
	f, err := codec.Resolve(given.Dtype, d.Layout == layout.SDNQ)
	if err != nil {
		return given, "", usage.Wrap(err)
	}
	s.Format = f.Scaled(given.Scale)
	noted := len(d.cannot)
	again, err := d.store(s, &given)
	if err != nil || again != "" {
		d.cannot = d.cannot[:noted]
		return given, keep, err
	}
	d.cannot = d.cannot[:noted-1]
	return given, "", nil
}

// store is quantize with settings that may yet change.
func (d *decider) store(s *Step, given *codec.Settings) (keep string, err error) {
	choice, measured := d.Chosen[s.Source.Name]
	if measured {
		if given.Dtype = choice.Dtype; choice.Dtype == "" {
			return "no dtype loses little enough", nil
		}
		if choice.NoMatmul {
			given.QuantizedMatmul, given.QuantizedMatmulConv = false, false
		}
	}
	if err := d.check(s.Format, given); err != nil {
		return "", usage.Errorf("layer %s: %w", s.Layer, err)
	}
	if err := d.weigh(s, given); err != nil {
		return "", err
	}
	src := s.CodecSource()
	s.Codec, s.Options, err = d.make(s.Format, src, *given)
	if err != nil {
		d.cannot = append(d.cannot, fmt.Sprintf("%s is kept: %v", s.Layer, err))
		return err.Error(), nil
	}
	if err := d.settle(s, src, given); err != nil {
		return "", err
	}
	if !codec.Gains(s.Codec) {
		s.Moments = nil
	}
	if scale, ok := d.InputScales[s.Layer]; ok && codec.Matrices(s.Codec) == nil {
		s.Codec = codec.WithInputScale(s.Codec, scale)
	}
	s.NoMatmul = s.NoMatmul || choice.NoMatmul
	s.Action = Quantize
	s.Dtype = dtypeName(s)
	return "", nil
}

// settle takes back settings that a layer cannot follow though its dtype can
// hold it, and says so where the reference does not.
func (d *decider) settle(s *Step, src codec.Source, given *codec.Settings) (err error) {
	scheme := codec.Scheme(s.Codec)
	if scheme == nil {
		return nil
	}
	wanted := &given.QuantizedMatmul
	if scheme.Kind == sdnq.Conv || scheme.Kind == sdnq.ConvTranspose {
		wanted = &given.QuantizedMatmulConv
	}
	if scheme.MatmulFails() && !given.ExactReference {
		*wanted = false
		d.cannot = append(d.cannot, s.Layer+" is stored without quantized-matmul: SDNQ could not multiply it")
		s.Codec, s.Options, err = s.Format.Make(src, *given)
	}
	if s.NoMatmul = *wanted && !scheme.Matmul; s.NoMatmul {
		given.QuantizedMatmul, given.QuantizedMatmulConv = false, false // as the list says, which knows no kinds
	}
	if scheme.Ungrouped {
		given.GroupSize = -1
	}
	return err
}

// dtypeName is SDNQ's canonical name, or the format's.
func dtypeName(s *Step) string {
	if s.Format != codec.SDNQ() {
		return s.Format.Name
	}
	name, _ := s.Options.Get("weights_dtype")
	return name.(string)
}

// castKept does to an unquantized weight what convert_to_quant does, where its
// bytes are asked for: two-dimensional ones get another dtype.
func (d *decider) castKept(s *Step) {
	t := s.Source
	if d.Layout != layout.Comfy || !d.exact() || len(t.Shape) != 2 || !codec.Floats(t.Dtype) {
		return
	}
	to := castToBF16
	if d.Kept != nil {
		to = d.Kept
	}
	if dtype := to(t); dtype != t.Dtype {
		s.Codec = codec.Cast(t.Shape, dtype)
		s.Reason += "; cast to " + dtype.String()
	}
}

// unused refuses rules that matched nothing. Of a component, it returns them.
func (d *decider) unused() (map[string]error, error) {
	none := map[string]error{}
	add := func(text string, err error) error {
		if d.Component == "" {
			return err
		}
		none[text] = err
		return nil
	}
	for _, r := range d.Set {
		if !d.used[r.Text] {
			if err := add("`Rules` "+r.Text, usage.Errorf("`Rules` %s: the pattern matches no weight", r.Text)); err != nil {
				return nil, err
			}
		}
		if err := d.followed[r.Text]; err != nil {
			return nil, err
		}
	}
	for _, p := range d.Only {
		if !d.used[p.String()] {
			if err := add("`Only` "+p.String(), usage.Errorf("`Only` %v: the pattern matches no weight", p)); err != nil {
				return nil, err
			}
		}
	}
	return none, nil
}

func (d *decider) notes() []string {
	var notes []string
	for _, p := range d.Keep {
		if !d.used[p.String()] {
			notes = append(notes, fmt.Sprintf("`Keep` %v matches no weight", p))
		}
	}
	return append(notes, d.cannot...)
}
