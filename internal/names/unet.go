package names

import (
	"fmt"
	"strings"
)

// The layers of a UNet's and a VAE's blocks.
const (
	unetResnet = `
		in_layers.0 = norm1
		in_layers.2 = conv1
		emb_layers.1 = time_emb_proj
		out_layers.0 = norm2
		out_layers.3 = conv2
		skip_connection = conv_shortcut`
	unetAttention = `
		norm
		proj_in
		proj_out
		transformer_blocks.`
	vaeResnet = `
		norm1
		norm2
		conv1
		conv2
		nin_shortcut = conv_shortcut`
)

// stage is the resnets of a block in diffusers' names.
type stage struct {
	resnets  int
	attends  []bool // each followed by an attention
	resample bool   // and all of them by a change of size
}

// unetBlocks are the rules of a UNet's blocks: ComfyUI counts all of one half
// through, diffusers by sizes.
func unetBlocks(v *inventory, side Side) []block {
	var b []block
	add := func(comfy, diffusers, lines string) {
		b = append(b, block{comfy + "=" + diffusers, lines})
	}
	labels := unetLabels(v, side)
	add("", "", "label_emb.0.0 = "+labels+".linear_1\nlabel_emb.0.2 = "+labels+".linear_2")
	n := 1 // conv_in is block 0
	for x, s := range unetStages(v, side, "input_blocks", "down_blocks", 1) {
		for i := range s.resnets {
			add(fmt.Sprintf("input_blocks.%d.0.", n), fmt.Sprintf("down_blocks.%d.resnets.%d.", x, i), unetResnet)
			if s.attends[i] {
				add(fmt.Sprintf("input_blocks.%d.1.", n), fmt.Sprintf("down_blocks.%d.attentions.%d.", x, i), unetAttention)
			}
			n++
		}
		if s.resample {
			add(fmt.Sprintf("input_blocks.%d.0.", n), fmt.Sprintf("down_blocks.%d.downsamplers.0.", x), "op = conv")
			n++
		}
	}
	n = 0
	for x, s := range unetStages(v, side, "output_blocks", "up_blocks", 0) {
		for i := range s.resnets {
			add(fmt.Sprintf("output_blocks.%d.0.", n), fmt.Sprintf("up_blocks.%d.resnets.%d.", x, i), unetResnet)
			last := 1
			if s.attends[i] {
				add(fmt.Sprintf("output_blocks.%d.1.", n), fmt.Sprintf("up_blocks.%d.attentions.%d.", x, i), unetAttention)
				last++
			}
			if s.resample && i == s.resnets-1 {
				add(fmt.Sprintf("output_blocks.%d.%d.", n, last), fmt.Sprintf("up_blocks.%d.upsamplers.0.", x), "conv")
			}
			n++
		}
	}
	return b
}

// unetLabels is diffusers' name for what else than text and time a model is told. Of
// those that ComfyUI calls alike, the second generation's have texts of 1024 numbers.
func unetLabels(v *inventory, side Side) string {
	if side == Diffusers && v.begun["class_embedding."] {
		return "class_embedding"
	}
	for name, t := range v.tensors {
		if strings.HasSuffix(name, ".attn2.to_k.weight") && len(t.Shape) == 2 && t.Shape[1] == 1024 {
			return "class_embedding"
		}
	}
	return "add_embedding"
}

// unetStages are the blocks of one half by the names of a side; first is the first
// of ComfyUI's that is one of diffusers'.
func unetStages(v *inventory, side Side, comfy, diffusers string, first int) (stages []stage) {
	if side == Diffusers {
		for x := range v.count(diffusers + ".") {
			at := fmt.Sprintf("%s.%d.", diffusers, x)
			s := stage{resnets: v.count(at + "resnets.")}
			for i := range s.resnets {
				s.attends = append(s.attends, v.begun[fmt.Sprintf("%sattentions.%d.", at, i)])
			}
			s.resample = v.begun[at+"downsamplers."] || v.begun[at+"upsamplers."]
			stages = append(stages, s)
		}
		return stages
	}
	open := false
	for n := first; n < v.count(comfy+"."); n++ {
		at := fmt.Sprintf("%s.%d.", comfy, n)
		if !open {
			stages, open = append(stages, stage{}), true
		}
		s := &stages[len(stages)-1]
		if !v.begun[at+"0.op."] {
			s.resnets++
			s.attends = append(s.attends, v.begun[at+"1.transformer_blocks."])
		}
		s.resample = v.begun[at+"0.op."] || v.begun[at+"1.conv."] || v.begun[at+"2.conv."]
		open = !s.resample
	}
	return stages
}

// vaeBlocks are the rules of a decoder's blocks, which diffusers counts from the
// other end.
func vaeBlocks(v *inventory, side Side) (b []block) {
	names := []string{"decoder.up.", "decoder.up_blocks."}
	n := v.count(names[side])
	for i := range n {
		under := fmt.Sprintf("%s%d.=%s%d.", names[ComfyUI], n-1-i, names[Diffusers], i)
		b = append(b, block{strings.ReplaceAll(under, ".=", ".block.#.=") + "resnets.#.", vaeResnet}, block{under, "upsample.conv = upsamplers.0.conv"})
	}
	return b
}
