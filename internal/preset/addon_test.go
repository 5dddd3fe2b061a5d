package preset

import (
	"fmt"
	"iter"
	"strings"
	"testing"
)

// shaped lists names and shapes: "a.weight 4x8, b 3".
func shaped(text string) iter.Seq2[string, []int] {
	return func(yield func(string, []int) bool) {
		for one := range strings.SplitSeq(text, ", ") {
			name, dims, _ := strings.Cut(one, " ")
			var shape []int
			for _, d := range strings.Split(dims, "x") {
				n := 0
				if _, err := fmt.Sscan(d, &n); err == nil {
					shape = append(shape, n)
				}
			}
			if !yield(name, shape) {
				return
			}
		}
	}
}

// TestAddonOf: what changes a model and is none must not be taken for one, nor a
// model for such a file because of a few odd names.
func TestAddonOf(t *testing.T) {
	const flux = "double_blocks.0.img_attn.norm.key_norm.scale 128, double_blocks.0.img_attn.qkv.weight 96x32, img_in.weight 32x64"
	for _, tt := range []struct{ names, header, want string }{
		{"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight 4x32, lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight 96x4, lora_unet_double_blocks_0_img_attn_qkv.alpha ", "", "a LoRA"},
		{"transformer.transformer_blocks.0.attn.to_q.lora_A.weight 4x32, transformer.transformer_blocks.0.attn.to_q.lora_B.weight 96x4", "", "a LoRA"},
		{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight 4x32", "", "a LoRA"},
		{"diffusion_model.blocks.0.q.lora_A.default.weight 4x32", "", "a LoRA"},
		{"unet.down.0.processor.to_q_lora.down.weight 4x32, unet.down.0.processor.to_q_lora.up.weight 32x4", "", "a LoRA"},
		{"text_encoder.q.lora_linear_layer.up.weight 4x32", "", "a LoRA"},
		{"blocks.0.attn.qkv.lora_B 4x32", "", "a LoRA"},
		{"diffusion_model.blocks.0.q.diff 32x32, diffusion_model.blocks.0.q.diff_b 32", "", "a LoRA"},
		{"lycoris_double_blocks_0_q.lokr_w1 16x16, lycoris_double_blocks_0_q.lokr_w2 6x2", "", "a LyCORIS file"},
		{"lora_unet_q.hada_w1_a 16x16, lora_unet_q.hada_w1_b 16x16", "", "a LyCORIS file"},
		{"lora_unet_q.oft_blocks 4x16x16, lora_unet_q.alpha ", "", "a LyCORIS file"},
		{"lora_unet_q.a1.weight 4x16, lora_unet_q.b1.weight 4x16", "", "a LyCORIS file"},
		{"lllite_dit_blocks_0_q.down.weight 4x16, lllite_dit_blocks_0_q.depth_embed 32", "", "a ControlNet-LLLite file"},
		{"lora_controlnet 0, input_blocks.0.0.weight 4x4", "", "a control LoRA"},
		{"image_proj.proj.weight 64x16, ip_adapter.1.to_k_ip.weight 64x16", "", "an IP-Adapter"},
		{"adapter.body.0.resnets.0.block1.weight 4x4x3x3, adapter.conv_in.weight 4x4", "", "a T2I-Adapter"},
		{"body.0.in_conv.weight 4x4, body.0.body.0.block1.weight 4x4", "", "a T2I-Adapter"},
		{"emb_params 4x768", "", "a textual inversion embedding"},
		{"clip_l 4x768, clip_g 4x1280", "", "a textual inversion embedding"},
		{"text_encoders_0 2x768, text_encoders_1 2x1280", "", "a textual inversion embedding"},
		{"double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight 64x16, ip_adapter_proj_model.norm.weight 16", "", "an IP-Adapter"},
		{"base_model.vera_A 64x16, base_model.vera_B 16x64", "", "a LoRA"},
		{"768.0.linear.0.weight 1536x768", "", "a hypernetwork"},
		{"strange.weight 64x64", "ss_network_module", "a LoRA"},
		{"strange.weight 64x64", "ss_base_model_version", ""},
		// models
		{flux, "", ""},
		{flux, "ss_network_module", ""},
		{flux + ", double_blocks.0.img_attn.qkv.lora_A.weight 4x32, double_blocks.0.img_attn.qkv.lora_B.weight 96x4", "", ""},
		{"model.layers.0.self_attn.q_proj.base_layer.weight 96x96, model.layers.0.self_attn.q_proj.lora_A.speech.weight 4x96", "", ""},
		{"model.layers.0.attn.w_lora.lora.0.weight 64x64, model.layers.0.ffn.key.weight 64x64", "", ""},
		{"body.0.rdb1.conv1.weight 4x4x3x3, conv_first.weight 4x3x3x3", "", ""},
		{"clip_l.transformer.text_model.embeddings.weight 64x64", "", ""},
		{"strange.weight 64x64", "", ""},
	} {
		header := map[string]string{}
		if tt.header != "" {
			header[tt.header] = "networks.lora"
		}
		if got, why := AddonOf(header, shaped(tt.names)); got != tt.want || (got == "") != (why == "") {
			t.Errorf("%s %s: %q (%s), want %q", tt.names, tt.header, got, why, tt.want)
		}
	}
	if got, _ := AddonOf(map[string]string{"modelspec.architecture": "flux-1-dev/lora"}, shaped("strange.weight 64x64")); got != "a LoRA" {
		t.Errorf("modelspec.architecture of a LoRA: %q", got)
	}
	if got, _ := AddonOf(map[string]string{"modelspec.architecture": "flux-1-dev"}, shaped("strange.weight 64x64")); got != "" {
		t.Errorf("modelspec.architecture of a model: %q", got)
	}
}
