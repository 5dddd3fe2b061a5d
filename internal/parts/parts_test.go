package parts

import (
	"fmt"
	"testing"
)

// TestRoundTrip: for each place that has a part, the part under its own names finds its
// way back to the very name, beside a model that is such as to have it.
func TestRoundTrip(t *testing.T) {
	models := map[string]Shapes{
		"cond_stage_model.transformer.":        {"x.attn2.to_k.weight": {8, 768}},
		"cond_stage_model.model.":              {"x.attn2.to_k.weight": {8, 1024}},
		"conditioner.embedders.0.model.":       {"x.attn2.to_k.weight": {8, 1280}},
		"conditioner.embedders.0.transformer.": {"x.attn2.to_k.weight": {8, 2048}},
		"conditioner.embedders.1.model.":       {"x.attn2.to_k.weight": {8, 2048}},
	}
	for prefix, model := range models {
		for part, names := range map[string][]string{
			"clip_l": {"text_model.encoder.layers.0.mlp.fc1.weight", "text_model.final_layer_norm.weight"},
			"clip_h": {"transformer.resblocks.22.ln_1.weight", "text_projection"},
			"clip_g": {"transformer.resblocks.30.ln_1.weight", "text_projection"},
		} {
			home := HomeOf("UNet", model)
			own := Shapes{}
			for _, name := range names {
				own[name] = []int{8}
			}
			found, err := home.Prefix(part, own)
			if err != nil || found != prefix {
				continue // another model's
			}
			delete(models, prefix)
			whole := Shapes{"model.diffusion_model.x": {8}}
			for name := range own {
				whole[found+name] = []int{8}
			}
			if EncoderOf(own) != part {
				t.Errorf("%s is taken for %q", part, EncoderOf(own))
			}
			for _, one := range Divide(whole, "") {
				if one.Name == Model {
					continue
				}
				if one.Name != part || len(one.Tensors) != len(own) {
					t.Errorf("%s: %v is not %s", prefix, one, part)
				}
				for _, names := range one.Tensors {
					if names[0] != found+names[1] {
						t.Errorf("%s: %q", prefix, names)
					}
				}
			}
		}
	}
	for prefix := range models {
		t.Errorf("no part stands after %s", prefix)
	}
}

// TestDivideLosesNothing: each tensor is in one part, whatever stands beside it.
func TestDivideLosesNothing(t *testing.T) {
	all := Shapes{"odd": {1}, "text_encoders.": {1}, "text_encoders.x": {1}, "text_encoders..transformer.y": {1}, "model.diffusion_model.": {1}, "": {1}, "vae": {1}, "v_pred": {1}, "v_predicted": {1}}
	for i := range places {
		for _, end := range []string{"", "a.weight", "text_model.b", "transformer.resblocks.30.c", "encoder.layers.0.d"} {
			all[fmt.Sprint(places[i].prefix, end)] = []int{1}
		}
	}
	for _, word := range []string{"../x", "a/b", `a\\b`, "model", "vae", "rest", "T5", "\x00", "é"} {
		all["text_encoders."+word+".transformer.z"] = []int{1}
	}
	seen := map[string]bool{}
	for _, part := range Divide(all, "net.") {
		if !isWord(part.Name) && part.Name != Rest && part.Name != Model && part.Name != VAE && part.Name != Vision {
			t.Errorf("a part is called %q", part.Name)
		}
		for _, names := range part.Tensors {
			if names[1] == "" && names[0] != "" {
				t.Errorf("%q has no name of its own", names[0])
			}
			if seen[names[0]] {
				t.Errorf("%q is in two parts", names[0])
			}
			seen[names[0]] = true
		}
	}
	if len(seen) != len(all) {
		t.Errorf("%d of %d tensors are in parts", len(seen), len(all))
	}
}

// TestEveryNameIsKnown: what is told of text encoders can be said, too.
func TestEveryNameIsKnown(t *testing.T) {
	known := map[string]bool{}
	for _, name := range Names() {
		known[name] = true
	}
	for _, e := range encoders {
		if !known[e.part] {
			t.Errorf("%s is no name of a part", e.part)
		}
	}
	for _, f := range families {
		for name := range f.texts {
			if name != "*" && !known[name] {
				t.Errorf("%s of %s is no name of a part", name, f.kind)
			}
		}
	}
}
