package lora

import (
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/names"
)

// role is which of the models of a pipeline one is.
type role int

const (
	denoiser role = iota
	encoder1      // the first text encoder
	encoder2
	encoder3
	other // a VAE, which adapters leave alone
)

// prefixes are what stands before a model's own names in the names of modules. Flat ones
// stand before names in which dots have become underscores.
var prefixes = []struct {
	text string
	role
	flat bool
}{
	{"lora_unet__", denoiser, true}, // Wan Fun's
	{"lora_unet_", denoiser, true}, {"lora_prior_unet_", denoiser, true},
	{"lora_transformer_", denoiser, true}, {"lycoris_", denoiser, true},
	{"lora_te1_", encoder1, true}, {"lora_te2_", encoder2, true}, {"lora_te3_", encoder3, true},
	{"lora_te_", encoder1, true}, {"lora_prior_te_", encoder1, true},
	{"unet.base_model.model.", denoiser, false}, {"transformer.base_model.model.", denoiser, false},
	{"text_encoder.base_model.model.", encoder1, false}, {"text_encoder_2.base_model.model.", encoder2, false},
	{"model.diffusion_model.", denoiser, false}, {"diffusion_model.", denoiser, false},
	{"transformer.", denoiser, false}, {"unet.", denoiser, false},
	{"text_encoders.clip_l.transformer.", encoder1, false}, {"text_encoders.clip_g.transformer.", encoder2, false}, {"text_encoders.t5xxl.transformer.", encoder2, false}, {"text_encoders.t5xxl.transformer.", encoder3, false},
	{"text_encoders.transformer.", encoder2, false}, {"text_encoders.transformer.", encoder3, false},
	{"text_encoder_2.", encoder2, false}, {"text_encoder_3.", encoder3, false}, {"text_encoder.", encoder1, false},
	{peftPrefix, denoiser, false},
	{"", denoiser, false},
}

// parts of files that hold several models: what stands before their names, and which
// they are.
var partsOfFiles = []partOfFile{
	{"model.diffusion_model.", []role{denoiser}},
	{"conditioner.embedders.0.transformer.", []role{encoder1}}, {"conditioner.embedders.1.model.", []role{encoder2}}, // SDXL's
	{"cond_stage_model.transformer.", []role{encoder1}}, {"cond_stage_model.model.", []role{encoder1}}, // of Stable Diffusion 1, 2
	{"text_encoders.clip_l.transformer.", []role{encoder1}}, {"text_encoders.clip_g.transformer.", []role{encoder2}},
	{"text_encoders.t5xxl.transformer.", []role{encoder2, encoder3}},
	{"first_stage_model.", []role{other}}, {"vae.", []role{other}},
}

// folders are the roles of a pipeline's folders.
var folders = map[string][]role{
	"unet": {denoiser}, "transformer": {denoiser}, "transformer_2": {other},
	"text_encoder": {encoder1}, "text_encoder_2": {encoder2}, "text_encoder_3": {encoder3},
}

// encoders are what families of text encoders are where a model stands alone.
var encoders = map[string][]role{
	"T5": {encoder2, encoder3}, "CLIP text encoder": {encoder1, encoder2}, "CLIP text encoder without a prefix": {encoder1, encoder2},
	"OpenCLIP text encoder": {encoder2}, "language model": {encoder1, denoiser}, "language model without a prefix": {encoder1, denoiser},
	"Gemma 3 that also sees": {encoder1, denoiser}, "Mistral that also sees": {encoder1, denoiser},
}

// respelled are ways to call modules that files have beside the model's own and those of
// the other side: what is replaced in a name, and by what.
var respelled = [][2]string{
	{".processor.to_out", ".to_out.0"}, {".processor.to_", ".to_"}, // diffusers' of old
	{".to_out", ".to_out.0"},
	{".self_attn.to_out", ".self_attn.out_proj"}, {".self_attn.to_q", ".self_attn.q_proj"}, {".self_attn.to_k", ".self_attn.k_proj"}, {".self_attn.to_v", ".self_attn.v_proj"},
	{".processor.qkv_lora1", ".img_attn.qkv"}, {".processor.proj_lora1", ".img_attn.proj"}, // XLabs'
	{".processor.qkv_lora2", ".txt_attn.qkv"}, {".processor.proj_lora2", ".txt_attn.proj"},
	{".processor.qkv", qkvOfSingle}, {".processor.proj", ".linear2"},
	{"class_embedding.", "add_embedding."},
	{"_attn.qkv", "_attn_qkv"}, {"_attn.proj", "_attn_proj"}, {"mlp.0", "mlp.fc1"}, {"mlp.2", "mlp.fc2"}, // Hunyuan Video's
	{"_attn_qkv", "_attn.qkv"}, {"_attn_proj", "_attn.proj"}, {"mlp.fc1", "mlp.0"}, {"mlp.fc2", "mlp.2"},
	{"_mod.lin", "_mod.linear"}, {".modulation.lin", ".modulation.linear"},
	{"_mod.linear", "_mod.lin"}, {".modulation.linear", ".modulation.lin"},
}

// qkvOfSingle are the rows of Flux's linear1 that are queries, keys and values, as many of
// each as it has columns.
const qkvOfSingle = ".linear1_qkv"

// place is rows of a tensor, along the first dimension.
type place struct {
	tensor   int // in the model's list
	from, to int
}

// index finds the weights of a model by the names of modules.
type index struct {
	tensors []checkpoint.Tensor
	names   map[string]int // of the tensors, as they are
	spaces  []*space
	alone   bool // it is no component of a pipeline
}

// space is one model of a file.
type space struct {
	roles []role
	// places are rows of tensors by what either side calls them; flat has underscores for
	// dots, and nil for what could be either of two.
	places, flat map[string][]place
}

// newIndex takes a model's tensors. folder is its folder in a pipeline, "" where it
// stands alone.
func newIndex(tensors []checkpoint.Tensor, folder string) *index {
	x := &index{tensors: tensors, names: map[string]int{}, alone: folder == ""}
	byPart := make([][]int, len(partsOfFiles)+1)
	for i := range tensors {
		x.names[tensors[i].Name] = i
		at := slices.IndexFunc(partsOfFiles, func(p partOfFile) bool { return strings.HasPrefix(tensors[i].Name, p.prefix) })
		if at < 0 || folder != "" {
			at = len(partsOfFiles)
		}
		byPart[at] = append(byPart[at], i)
	}
	for at, list := range byPart {
		if len(list) == 0 {
			continue
		}
		var s *space
		if at < len(partsOfFiles) {
			s = x.space(list, partsOfFiles[at].prefix)
			s.roles = partsOfFiles[at].roles
		} else {
			s = x.space(list, "")
			if roles, ok := folders[folder]; ok {
				s.roles = roles
			} else if s.roles == nil {
				s.roles = []role{denoiser}
			}
		}
		x.spaces = append(x.spaces, s)
	}
	return x
}

// partOfFile is one model of a file that holds several.
type partOfFile struct {
	prefix string
	roles  []role
}

// space makes the names of some of the tensors, before which a prefix stands.
func (x *index) space(list []int, prefix string) *space {
	s := &space{places: map[string][]place{}, flat: map[string][]place{}}
	var all []names.Tensor
	numbers := map[string]int{}
	for _, i := range list {
		t := &x.tensors[i]
		name := strings.TrimPrefix(t.Name, prefix)
		numbers[name] = i
		if name == "text_projection" { // of OpenCLIP's, turned: it has no other name, and layers have
			s.add(name, []place{{i, 0, rowsOf(t.Shape)}})
			continue
		}
		all = append(all, names.Tensor{Name: name, Shape: t.Shape, Dtype: t.Dtype.String()})
	}
	found, err := names.Find(all)
	if err == nil {
		s.roles = rolesOf(found.Family, all)
	}
	for _, t := range all {
		whole := []place{{numbers[t.Name], 0, rowsOf(t.Shape)}}
		s.add(t.Name, whole)
		for _, before := range []string{"model.diffusion_model.", "diffusion_model.", "model.", "net."} {
			if short, ok := strings.CutPrefix(t.Name, before); ok {
				s.add(short, whole)
			}
		}
	}
	if err != nil {
		return s
	}
	for _, side := range []names.Side{names.ComfyUI, names.Diffusers} {
		p, err := names.Make(all, side)
		if err != nil {
			continue // its own names have to do
		}
		for _, o := range p.Outputs {
			if o.Alternate > 0 || o.Turned {
				continue // its values are not those of one weight after the other
			}
			var places []place
			for _, part := range o.Parts {
				places = append(places, place{numbers[part.Source], part.From, part.To})
			}
			s.add(o.Name, places)
		}
	}
	return s
}

// rolesOf is what a family is; of CLIP's models, the wide one is the second.
func rolesOf(family string, all []names.Tensor) []role {
	roles := encoders[family]
	if !strings.HasPrefix(family, "CLIP") {
		return roles
	}
	for _, t := range all {
		if strings.HasSuffix(t.Name, "q_proj.weight") && len(t.Shape) == 2 {
			if t.Shape[1] >= 1280 {
				return []role{encoder2}
			}
			return []role{encoder1}
		}
	}
	return roles
}

func rowsOf(shape []int) int {
	if len(shape) == 0 {
		return 1
	}
	return shape[0]
}

// add takes a tensor's name; the first of several tensors that are called so counts.
func (s *space) add(name string, places []place) {
	if _, ok := s.places[name]; ok {
		return
	}
	s.places[name] = places
	flat := strings.ReplaceAll(name, ".", "_")
	if old, ok := s.flat[flat]; ok && !slices.Equal(old, places) {
		places = nil
	}
	s.flat[flat] = places
}

// find returns where the weight of a module lies, or its bias, and ok false where the
// model has no such.
func (x *index) find(module string, bias bool) (places []place, ok bool) {
	if places, ok := x.exactly(module, bias); ok {
		return places, true
	}
	for _, p := range prefixes {
		name, ok := strings.CutPrefix(module, p.text)
		if !ok || name == "" {
			continue
		}
		for _, s := range x.spaces {
			if !slices.Contains(s.roles, p.role) && !(x.only() && (p.text == "" || p.text == peftPrefix)) {
				continue
			}
			if places, ok := s.find(name, bias, p.flat, x.tensors); ok {
				return places, true
			}
		}
	}
	return nil, false
}

// exactly finds a tensor under its very name, of a model that is no component: there all
// have the same beginnings.
func (x *index) exactly(module string, bias bool) ([]place, bool) {
	ends := []string{".weight", ""}
	if bias {
		ends = []string{".bias"}
	}
	for _, end := range ends {
		if i, ok := x.names[module+end]; ok && x.alone {
			return []place{{i, 0, max(rowsOf(x.tensors[i].Shape), 1)}}, true
		}
	}
	return nil, false
}

// only reports whether there is one model, which names without a role mean then.
func (x *index) only() bool { return x.alone && len(x.spaces) == 1 }

// find looks for a name, and for what else it may be called.
func (s *space) find(name string, bias, flat bool, tensors []checkpoint.Tensor) ([]place, bool) {
	if places, ok := s.called(name, bias, flat, tensors); ok {
		return places, true
	}
	for _, r := range respelled {
		from, to := r[0], r[1]
		if flat {
			from, to = strings.ReplaceAll(from, ".", "_"), strings.ReplaceAll(to, ".", "_")
		}
		at := strings.LastIndex(name, from)
		if at < 0 {
			continue
		}
		if places, ok := s.called(name[:at]+to+name[at+len(from):], bias, flat, tensors); ok {
			return places, true
		}
	}
	return nil, false
}

// called is the place of a module that is called so: its weight or bias, or a tensor.
func (s *space) called(name string, bias, flat bool, tensors []checkpoint.Tensor) ([]place, bool) {
	list, dot := s.places, "."
	if flat {
		list, dot = s.flat, "_"
	}
	if bias {
		places := list[name+dot+"bias"]
		return places, places != nil
	}
	for _, full := range []string{name + dot + "weight", name, name + "_weight"} {
		if places := list[full]; places != nil {
			return places, true
		}
	}
	qkv := strings.ReplaceAll(qkvOfSingle, ".", dot)
	if before, ok := strings.CutSuffix(name, qkv); ok {
		if places := list[before+dot+"linear1"+dot+"weight"]; places != nil {
			t := &tensors[places[0].tensor]
			return first(places, 3*(t.Numel()/max(rowsOf(t.Shape), 1))), true
		}
	}
	return nil, false
}

// first are the first n rows of places.
func first(places []place, n int) (some []place) {
	for _, p := range places {
		if n <= 0 {
			break
		}
		p.to = min(p.to, p.from+n)
		n -= p.to - p.from
		some = append(some, p)
	}
	return some
}
