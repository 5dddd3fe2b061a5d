package names

import "strings"

// family is a kind of model and its names on both sides.
type family struct {
	name string
	// comfy and diffusers are the signs of either side's names: sets of names, of
	// which one must be there; after a bar, those that must not. One that ends in a
	// dot is the beginning of a name.
	comfy, diffusers []string
	// prefixes may stand before all names in ComfyUI's files.
	prefixes []string
	blocks   []block
	// grow makes further rules by the blocks that there are.
	grow  func(v *inventory, side Side) []block
	wants []wanted
	// same says that both sides have the same names.
	same bool
}

// wanted is a tensor that ComfyUI looks for in models whose names show a sign.
type wanted struct {
	sign string
	Want
}

// Found is the family of a model.
type Found struct {
	Family string
	Side   Side
	Prefix string // before all names
	Same   bool   // the other side's names are these too

	family *family
}

// controls are signs of models that steer another one, whose blocks they have. ComfyUI
// reads those with diffusers' names.
var controls = []string{
	`controlnet_blocks.`, `controlnet_x_embedder.`, `controlnet_cond_embedding.`, `controlnet_patch_embedding.`, `controlnet_mid_block.`, `pos_embed_input.`,
	`input_hint_block.`, `zero_convs.`, `control_model.`, `control_blocks.`, `control_layers.`, `control_all_x_embedder.`,
}

// Find recognises a model by its names. The error is [ErrUnknown] or [ErrControl].
func Find(tensors []Tensor) (*Found, error) {
	inventories := map[string]*inventory{}
	under := func(prefix string) *inventory {
		v := inventories[prefix]
		if v == nil {
			v = newInventory(tensors, prefix)
			inventories[prefix] = v
		}
		return v
	}
	if under("").shows(controls) {
		return nil, ErrControl
	}
	for i := range families {
		f := &families[i]
		if under("").shows(f.diffusers) {
			return &Found{f.name, Diffusers, "", f.same, f}, nil
		}
		for _, prefix := range append([]string{""}, f.prefixes...) {
			if prefix != "" && !under("").begun[prefix] {
				continue
			}
			if under(prefix).shows(f.comfy) {
				return &Found{f.name, ComfyUI, prefix, f.same && prefix == "", f}, nil
			}
		}
	}
	return nil, ErrUnknown
}

// shows reports whether one of the signs is there.
func (v *inventory) shows(signs []string) bool {
	for _, sign := range signs {
		all, none, _ := strings.Cut(sign, "|")
		if v.each(strings.Fields(all), true) && v.each(strings.Fields(none), false) {
			return true
		}
	}
	return false
}

func (v *inventory) each(names []string, there bool) bool {
	for _, name := range names {
		if v.begun[name] != there {
			return false
		}
	}
	return true
}

// compiled are the family's rules for a model with the names of a side.
func (f *family) compiled(v *inventory, side Side) []rule {
	blocks := f.blocks
	if f.grow != nil {
		blocks = append(f.grow(v, side), blocks...)
	}
	return compile(blocks, v, side)
}
