package preset

import (
	"strings"
	"testing"
)

// TestGenericKeeps: the names of real models by which the cautious list keeps
// what spoils pictures and texts, and quantizes what takes the space.
func TestGenericKeeps(t *testing.T) {
	p, err := ByName("generic")
	if err != nil {
		t.Fatal(err)
	}
	keep := strings.Fields(`
		model.diffusion_model.x_embedder.proj.weight img_in.weight txt_in.weight final_layer.linear.weight time_in.in_layer.weight
		double_blocks.0.img_mod.lin.weight double_blocks.0.txt_mod.lin.weight single_blocks.0.modulation.lin.weight
		transformer_blocks.0.norm1.linear.weight time_text_embed.timestep_embedder.linear_1.weight model.embed_tokens.weight
		lm_head.weight encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight model.layers.0.mlp.gate.weight
		first_stage_model.decoder.conv_in.weight vae.encoder.mid.attn.to_q.weight patch_embedding.weight shared.weight`)
	quantize := strings.Fields(`
		double_blocks.0.img_attn.qkv.weight double_blocks.18.txt_mlp.0.weight single_blocks.37.linear1.weight
		transformer_blocks.0.attn.to_q.weight transformer_blocks.0.ff.net.0.proj.weight model.layers.31.mlp.gate_proj.weight
		model.layers.0.self_attn.q_proj.weight encoder.block.0.layer.1.DenseReluDense.wi_0.weight blocks.0.cross_attn.k.weight`)
	for _, name := range keep {
		if p.Keep(name, 1024, 1024) == "" {
			t.Errorf("%s is quantized", name)
		}
	}
	for _, name := range quantize {
		if why := p.Keep(name, 1024, 1024); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
}

func TestShapeRules(t *testing.T) {
	generic, _ := ByName("generic")
	none, _ := ByName("none")
	for _, tt := range []struct {
		rows, columns int
		keep          bool
	}{{128, 128, false}, {127, 128, true}, {31, 4096, true}, {4096, 31, true}, {32, 512, false}} {
		if why := generic.Keep("x.weight", tt.rows, tt.columns); (why != "") != tt.keep {
			t.Errorf("%d×%d: %q", tt.rows, tt.columns, why)
		}
		if why := none.Keep("lm_head.weight", tt.rows, tt.columns); why != "" {
			t.Errorf("none, %d×%d: %s", tt.rows, tt.columns, why)
		}
	}
}

// TestEmbedding: an embedding in the sdnq layout is no linear layer to its
// loaders, by the last part of the name alone.
func TestEmbedding(t *testing.T) {
	for name, want := range map[string]bool{
		"model.embed_tokens.weight": true, "wte.weight": true, "shared.weight": true, "text_model.embeddings.position_embedding.weight": true,
		"embed_tokens.proj.weight": false, "x_embedder.weight": false, "shared_expert.weight": false, "a.weight": false, "weight": false,
	} {
		if got := Embedding(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestSkipKeysOfSDNQ: the list for unknown classes has 25 entries in sdnq.
func TestSkipKeysOfSDNQ(t *testing.T) {
	p, _ := ByName("generic")
	if len(p.SkipKeys) != 25 {
		t.Errorf("%d entries, want 25", len(p.SkipKeys))
	}
	for name, want := range map[string]string{"proj_out_2.weight": ".proj_out", "model.lm_head.weight": "lm_head", "blocks.0.proj_out.weight": ""} {
		if entry, _ := p.Skip(name); entry != want {
			t.Errorf("%s: kept by %q, want %q", name, entry, want)
		}
	}
	for name, want := range map[string]string{"fluks": "did you mean flux2 or flux?", "flux9": "did you mean flux2 or flux?", "photograph": "tensorpress presets lists them"} {
		if _, err := ByName(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}
