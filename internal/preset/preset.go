// Package preset describes model families as data: how to recognise one, and which of
// its weights stay in high precision. Recognise finds the preset of a checkpoint,
// ByName one that a user names. For fits a preset to a checkpoint; then it says of
// every tensor what kind of layer it is, which entry of SDNQ's list keeps it, and what
// it is called in memory.
package preset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/suggest"
)

// Preset says which weights of a model family to keep.
type Preset struct {
	Name  string
	About string
	// SkipKeys are matched as SDNQ matches its lists, and are written into the config
	// of the sdnq layout.
	SkipKeys []string
	// Parts are parts of names; the comfy layout keeps tensors with one of them.
	Parts []string
	// Safe are what names begin with, each one or more whole words, that the comfy layout
	// keeps as well, where convert_to_quant's preset does not: inputs, time and text
	// projections, outputs.
	Safe []string
	// Remove are parts of names; the comfy layout leaves tensors with one of them out
	// of the file.
	Remove []string
	// MinNumel and MinChannels make the comfy layout, which has no minimums of its own,
	// keep small and thin layers.
	MinNumel, MinChannels int

	family     *Family
	prefix     string          // before the network's own names in the file
	predicting []string        // beginnings of layers' names, see Predicts
	reference  bool            // convert_to_quant's own, and nothing of ours
	class      class           // the checkpoint's class, before fitting the family's first
	finalOnly  bool            // keep the last language layer too
	inside     map[string]bool // weights that a module reads directly, see fused
}

var presets = makePresets()

func makePresets() []*Preset {
	rows := []*Preset{
		{Name: "none", About: "keeps nothing but what the settings say"},
		generic(&Family{
			Name:  "generic",
			About: "any model: SDNQ's common list, or a cautious list and shape rules in the comfy layout",
		}),
	}
	for i := range families {
		rows = append(rows, families[i].preset())
	}
	for i := range filters {
		if f := &filters[i]; !slices.ContainsFunc(rows, func(p *Preset) bool { return p.Name == f.Name }) {
			p := generic(&Family{Name: f.Name, About: "convert_to_quant's --" + f.Name})
			p.filter([]*Filter{f})
			p.Safe = safeBeside(f.Name)
			rows = append(rows, p)
		}
	}
	return rows
}

// generic returns a preset for a family without classes and filters.
func generic(f *Family) *Preset {
	return &Preset{
		Name: f.Name, About: f.About, family: f,
		SkipKeys: commonSkipKeys, Parts: cautious, MinNumel: 16384, MinChannels: 32,
	}
}

// All returns every preset.
func All() []*Preset { return presets }

// ByName returns the preset of that name. The error suggests similar names.
func ByName(name string) (*Preset, error) {
	if of, ok := strings.CutPrefix(name, Reference); ok {
		return referenceOf(of)
	}
	var names []string
	for _, p := range presets {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	hint := suggest.Hint(name, names)
	if hint == "" {
		hint = ": tensorpress presets lists them"
	}
	return nil, fmt.Errorf("unknown preset %q%s", name, hint)
}

// Reference begins the names of convert_to_quant's own presets.
const Reference = "ctq:"

// referenceOf returns the preset as convert_to_quant has it, of a family or of one of its
// flags.
func referenceOf(name string) (*Preset, error) {
	if strings.HasPrefix(name, Reference) {
		return nil, fmt.Errorf("unknown preset %q", Reference+name)
	}
	p, err := ByName(name)
	if f := FilterByName(name); f != nil { // the name of a flag goes before that of a family
		p, err = generic(&Family{Name: name, About: "convert_to_quant's --" + name, Filters: []string{name}}), nil
		p.filter([]*Filter{f})
	}
	if err != nil {
		return nil, err
	}
	if p.family == nil || len(p.family.Filters) == 0 {
		return nil, fmt.Errorf("convert_to_quant has no preset for %s: %s", name, strings.Join(referenceNames(), ", "))
	}
	return p.AsReference(), nil
}

func referenceNames() (names []string) {
	for _, f := range filters {
		names = append(names, Reference+f.Name)
	}
	return names
}

// AsReference returns the preset without what is kept here and not by convert_to_quant.
func (p *Preset) AsReference() *Preset {
	if p.family == nil || len(p.family.Filters) == 0 {
		return p
	}
	q := *p
	q.Name, q.Safe, q.predicting, q.reference = Reference+p.Name, nil, nil, true
	return &q
}

// safeBeside are what families keep beside a filter.
func safeBeside(filter string) (safe []string) {
	for i := range families {
		if slices.Contains(families[i].Filters, filter) {
			safe = append(safe, families[i].Safe...)
		}
	}
	return safe
}

// cautious are parts of the names of weights to keep in any model: embeddings, the
// network's own inputs and outputs, modulation, time and text projections, norms,
// routers and VAEs.
var cautious = strings.Fields(`
	embed wte. wpe. lm_head shared.weight relative_attention_bias pos_emb
	norm ln_ .ln1. .ln2. layer_scale logit_scale
	proj_in. proj_out. img_in. txt_in. vid_in. img_out. txt_out. vid_out. emb_in. emb_out.
	patch_conv conv_in conv_out input_proj final_layer final_linear head.head output_layer
	time_in. time_proj time_text vector_in. guidance_in. timestep text_proj caption_projection
	modulation adaln adaLN img_mod txt_mod scale_shift
	router .gate.weight classifier pooler score.weight
	first_stage_model vae. vocoder`)

// Keep returns why the preset keeps a parameter of that shape in the comfy layout, ""
// if it does not.
func (p *Preset) Keep(param string, rows, columns int) string {
	for _, part := range p.Parts {
		if strings.Contains(param, part) {
			return fmt.Sprintf("preset %s keeps %s", p.Name, strings.Trim(part, "."))
		}
	}
	if entry := p.safe(param); entry != "" {
		return fmt.Sprintf("preset %s keeps %s, which convert_to_quant's does not: `Preset` %s%s", p.Name, strings.Trim(entry, "."), Reference, p.Name)
	}
	if p.family != nil && !p.reference && p.Predicts(param) {
		return "multi-token prediction, which few programs load"
	}
	if rows*columns < p.MinNumel {
		return fmt.Sprintf("preset %s: %d values, fewer than %d", p.Name, rows*columns, p.MinNumel)
	}
	if least := min(rows, columns); least < p.MinChannels {
		return fmt.Sprintf("preset %s: %d wide, less than %d", p.Name, least, p.MinChannels)
	}
	return ""
}

// safe returns the entry of Safe that keeps a parameter, "" for none.
func (p *Preset) safe(param string) string {
	name := strings.TrimPrefix(param, p.prefix)
	for _, entry := range p.Safe {
		if rest, anywhere := strings.CutPrefix(entry, "."); anywhere && strings.Contains("."+name, "."+rest+".") || strings.HasPrefix(name, entry+".") {
			return entry
		}
	}
	return ""
}

// Drop reports whether the comfy layout leaves a tensor out of the file.
func (p *Preset) Drop(name string) bool {
	return slices.ContainsFunc(p.Remove, func(part string) bool { return strings.Contains(name, part) })
}
