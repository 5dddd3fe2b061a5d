package preset

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
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

// TestSafe: what spoils a model soonest, its inputs, time and text projections and outputs
// outside of blocks, is kept in every family, and by no preset of convert_to_quant's is
// more quantized than its own list says. Blocks stay as they are there.
func TestSafe(t *testing.T) {
	numbered := regexp.MustCompile(`\.\d+\.`)
	differ := map[string]bool{}
	for _, m := range slices.Concat(readModels(t, golden, 70), readModels(t, filepath.Join(golden, "single"), 27)) {
		p, _ := Recognise(m.config, m.tensors)
		if p.family == nil || len(p.family.Filters) == 0 {
			continue
		}
		theirs := p.AsReference()
		for _, r := range m.rows {
			if len(r.shape) != 2 || !strings.HasSuffix(r.name, ".weight") {
				continue
			}
			ours, their := p.Keep(r.name, 4096, 4096), theirs.Keep(r.name, 4096, 4096)
			_, listed := p.Skip(r.name)
			cautiously := slices.ContainsFunc(cautious, func(part string) bool { return strings.Contains(r.name, part) })
			switch {
			case their != "" && ours == "":
				t.Errorf("%s: %s is kept by convert_to_quant alone", m.name, r.name)
			case ours == "" && (listed || cautiously) && !numbered.MatchString(strings.TrimPrefix(r.name, p.prefix)):
				t.Errorf("%s: %s is left to 4 bits", m.name, r.name)
			case ours != "" && their == "":
				differ[p.Name] = true
				if !strings.Contains(ours, "Preset` ctq:"+p.Name) && !strings.Contains(ours, "multi-token") {
					t.Errorf("%s: %s: %s", m.name, r.name, ours)
				}
			}
		}
	}
	for _, f := range families {
		if len(f.Safe) > 0 && !differ[f.Name] && !slices.Contains(uncompared, f.Name) {
			t.Errorf("%s keeps nothing that convert_to_quant's preset does not", f.Name)
		}
	}
	for _, name := range []string{"hunyuan-video", "hunyuan"} {
		ours, err := ByName(name)
		if err != nil || ours.Keep("time_in.mlp.0.weight", 4096, 4096) == "" {
			t.Errorf("%s: %v", name, err)
		}
		theirs, err := ByName("ctq:" + name)
		if err != nil || theirs.Keep("time_in.mlp.0.weight", 4096, 4096) != "" {
			t.Errorf("ctq:%s: %v", name, err)
		}
	}
	for _, name := range []string{"ctq:flux", "ctq:none", "ctq:", "ctq:ctq:wan", "ctq:nothing"} {
		if _, err := ByName(name); err == nil {
			t.Errorf("%s is a preset", name)
		}
	}
}

// TestPredicts: layers of multi-token prediction are told by their names, by a tensor that
// only they have, and by the config's counts.
func TestPredicts(t *testing.T) {
	tensors := func(names ...string) func(yield func(string, []int) bool) {
		return func(yield func(string, []int) bool) {
			for _, name := range names {
				if !yield(name, []int{64, 64}) {
					return
				}
			}
		}
	}
	config := func(text string) (c map[string]json.RawMessage) {
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	const last, before = "model.layers.61.self_attn.q_proj.weight", "model.layers.60.self_attn.q_proj.weight"
	for _, c := range []struct {
		config string
		names  []string
		want   string // the tensors that are kept for it
	}{
		{`{}`, []string{last, before, "model.layers.61.eh_proj.weight"}, last + " model.layers.61.eh_proj.weight"},
		{`{"num_hidden_layers": 61, "num_nextn_predict_layers": 1}`, []string{last, before}, last},
		{`{"text_config": {"num_hidden_layers": 60, "num_nextn_predict_layers": 2}}`, []string{last, before, "model.layers.6.x.weight"}, last + " " + before},
		{`{"num_hidden_layers": 61, "num_nextn_predict_layers": "x"}`, []string{last}, ""},
		{`{"num_hidden_layers": 61, "num_nextn_predict_layers": 0}`, []string{last}, ""},
		{`{}`, []string{"mtp.fc.weight", "model.mtp.layers.0.x.weight", "mtp_head.weight", before}, "mtp.fc.weight model.mtp.layers.0.x.weight"},
		{`{}`, []string{"model.mtp_layers.0.mlp.up_proj.weight", "blocks.0.mtp.weight"}, "model.mtp_layers.0.mlp.up_proj.weight"},
	} {
		p, _ := Recognise(config(c.config), tensors(c.names...))
		var kept []string
		for _, name := range c.names {
			if strings.Contains(p.Keep(name, 4096, 4096), "multi-token prediction") {
				kept = append(kept, name)
			}
			if p.Predicts(name) != (p.Keep(name, 4096, 4096) != "") {
				t.Errorf("%s: %v", name, p.Predicts(name))
			}
		}
		if got := strings.Join(kept, " "); got != c.want {
			t.Errorf("%s: kept %q, want %q", c.config, got, c.want)
		}
	}
	none, _ := ByName("none")
	if why := none.For(nil, tensors("mtp.fc.weight")).Keep("mtp.fc.weight", 4096, 4096); why != "" {
		t.Error(why)
	}
}
