// Package parts knows what stands where in an all-in-one checkpoint for ComfyUI, and under
// which names the same is loaded by itself, as data. It describes release 0.33.0:
// comfy/supported_models.py has the prefixes, comfy/sd.py how files by themselves are told.
package parts

import (
	"slices"
	"strings"
)

// The names of parts that are no text encoders, and where ComfyUI looks for them.
const (
	Model  = "model"
	VAE    = "vae"
	Vision = "clip_vision"
	Rest   = "rest" // what belongs to no part that is loaded by itself
)

// Folder is that of ComfyUI's models where a part's file belongs, "" for the rest.
func Folder(part string) string {
	switch part {
	case Model:
		return "diffusion_models"
	case Rest:
		return ""
	case VAE, Vision:
		return part
	}
	return "text_encoders"
}

// Shapes are the tensors of a checkpoint; of quantized layers the weights have the shapes
// that they restore to.
type Shapes map[string][]int

func (s Shapes) has(name string) bool {
	if !strings.HasSuffix(name, ".") {
		_, ok := s[name]
		return ok
	}
	for one := range s {
		if strings.HasPrefix(one, name) {
			return true
		}
	}
	return false
}

// side is a side of a tensor, 0 where there is none.
func (s Shapes) side(name string, i int) int {
	if shape := s[name]; i < len(shape) {
		return shape[i]
	}
	return 0
}

// place is what stands after a prefix in an all-in-one checkpoint.
type place struct {
	// prefix is what names begin with; * is any one word, which names the part. Without a
	// dot at its end it is a whole name.
	prefix string
	part   string // "" for the word
	own    string // what the names begin with in a file of the part alone
	has    string // a name, or the beginning of one, that must follow the prefix
}

// places in their order; the first that fits a name counts.
var places = []place{
	{prefix: "model.diffusion_model.", part: Model},
	{prefix: "text_encoders.*.transformer."},
	// tokenizers of text encoders, which their loaders look for beside the weights
	{prefix: "text_encoders.*.spiece_model", own: "spiece_model"},
	{prefix: "text_encoders.*.tekken_model", own: "tekken_model"},
	{prefix: "text_encoders.*.tokenizer_json", own: "tokenizer_json"},

	{prefix: "cond_stage_model.model.visual.", part: Vision, own: "visual."},
	{prefix: "conditioner.embedders.0.open_clip.model.visual.", part: Vision, own: "visual."},
	{prefix: "embedder.model.visual.", part: Vision, own: "visual."},
	{prefix: "clip_l_vision.", part: Vision},
	{prefix: "conditioner.main_image_encoder.model.", part: Vision},

	{prefix: "cond_stage_model.transformer.", part: "clip_l", has: "text_model."},
	{prefix: "cond_stage_model.transformer.", part: "clip_l", own: "text_model.", has: "encoder.layers."},
	{prefix: "cond_stage_model.model.transformer.", part: "clip_h", has: "text_model."},
	{prefix: "cond_stage_model.model.", part: "clip_h", has: "transformer.resblocks."},
	{prefix: "cond_stage_model.*.transformer."},
	{prefix: "conditioner.embedders.0.transformer.", part: "clip_l", has: "text_model."},
	{prefix: "conditioner.embedders.0.model.transformer.", part: "clip_g", has: "text_model.encoder.layers.30."},
	{prefix: "conditioner.embedders.0.model.transformer.", part: "clip_h", has: "text_model."},
	{prefix: "conditioner.embedders.0.model.", part: "clip_g", has: "transformer.resblocks.30."},
	{prefix: "conditioner.embedders.0.model.", part: "clip_h", has: "transformer.resblocks."},
	{prefix: "conditioner.embedders.1.model.transformer.", part: "clip_g", has: "text_model."},
	{prefix: "conditioner.embedders.1.model.", part: "clip_g", has: "transformer.resblocks."},
	{prefix: "text_encoder.", part: "clip_g", has: "text_model."},

	{prefix: "first_stage_model.", part: VAE},
	{prefix: "vae.", part: VAE},
	{prefix: "pretransform.model.", part: VAE},
	{prefix: "conditioner.embedders.1.encoder.", part: VAE},

	// what says how a diffusion model is sampled, which its loader looks for under these names
	{prefix: "v_pred", part: Model, own: "v_pred"},
	{prefix: "ztsnr", part: Model, own: "ztsnr"},
	{prefix: "edm_mean", part: Model, own: "edm_mean"},
	{prefix: "edm_std", part: Model, own: "edm_std"},
	{prefix: "edm_vpred.sigma_max", part: Model, own: "edm_vpred.sigma_max"},
	{prefix: "edm_vpred.sigma_min", part: Model, own: "edm_vpred.sigma_min"},
}

// cut returns what of a name follows the prefix, and the word that its * stands for.
func (p *place) cut(name string) (word, rest string, ok bool) {
	before, after, any := strings.Cut(p.prefix, "*")
	rest, ok = strings.CutPrefix(name, before)
	if ok && any {
		var end string
		word, end, _ = strings.Cut(rest, ".")
		rest, ok = strings.CutPrefix("."+end, after)
	}
	whole := !strings.HasSuffix(p.prefix, ".")
	return word, rest, ok && (rest == "") == whole && (!any || isWord(word))
}

// isWord reports whether a word of a name can be that of a part, and so of its file.
func isWord(word string) bool {
	return word != "" && !slices.Contains([]string{Model, VAE, Vision, Rest}, word) && strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// Part is a part of an all-in-one checkpoint.
type Part struct {
	Name string
	// Tensors are names in the whole and in the part's own file, ascending by the former.
	Tensors [][2]string
}

// Divide sorts the tensors of an all-in-one checkpoint into its parts: the model first,
// text encoders, what else there is, and the rest last. model is what the names of the
// diffusion model begin with where it is not model.diffusion_model.
func Divide(all Shapes, model string) []Part {
	list := slices.Concat([]place{{prefix: model, part: Model}}, places)
	if model == "" {
		list = places
	}
	list = slices.DeleteFunc(slices.Clone(list), func(p place) bool { return p.has != "" && !all.has(p.prefix+p.has) })
	found := map[string]*Part{}
	for name := range all {
		part, own := Rest, name
		for i := range list {
			word, rest, ok := list[i].cut(name)
			if ok {
				part, own = list[i].part, list[i].own+rest
				if part == "" {
					part = word
				}
				break
			}
		}
		if found[part] == nil {
			found[part] = &Part{Name: part}
		}
		found[part].Tensors = append(found[part].Tensors, [2]string{name, own})
	}
	var parts []Part
	for _, one := range found {
		slices.SortFunc(one.Tensors, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
		parts = append(parts, *one)
	}
	slices.SortFunc(parts, func(a, b Part) int { return strings.Compare(order(a.Name), order(b.Name)) })
	return parts
}

// order sorts parts: as Divide says.
func order(part string) string {
	switch part {
	case Model:
		return "0"
	case VAE:
		return "2"
	case Vision:
		return "3"
	case Rest:
		return "4"
	}
	return "1" + part
}
