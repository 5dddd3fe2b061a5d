package lora

import (
	"bufio"
	"compress/gzip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/safetensors"
)

// small are the tensors of a small model of a family, by what a side calls them.
func small(t *testing.T, family string, side names.Side) (all []checkpoint.Tensor) {
	t.Helper()
	text, err := os.ReadFile("../names/testdata/" + family + ".tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		name, shape := words[side], words[len(words)-1]
		if len(words) != 3 {
			if words[0] != strings.ToLower(side.String()) {
				continue
			}
			name, shape = words[1], words[2]
		}
		one := checkpoint.Tensor{Tensor: safetensors.Tensor{Name: name, Dtype: safetensors.F32}}
		for word := range strings.SplitSeq(shape, ",") {
			if n, err := strconv.Atoi(word); err == nil {
				one.Shape = append(one.Shape, n)
			}
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no tensors", family)
	}
	return all
}

// key is what ComfyUI takes a module of an adapter for.
type key struct {
	family, module, tensor string
	from, to               int // 0, 0 for all rows
	swapped                bool
}

func keysOfComfyUI(t *testing.T) (all []key) {
	t.Helper()
	file, err := os.Open("testdata/keys.tsv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		words := strings.Split(lines.Text(), "\t")
		k := key{family: words[0], module: words[1], tensor: words[2]}
		switch len(words) {
		case 4:
			k.swapped = words[3] == "swapped"
		case 5:
			k.from, _ = strconv.Atoi(words[3])
			k.to, _ = strconv.Atoi(words[4])
		}
		all = append(all, k)
	}
	if len(all) < 1000 || lines.Err() != nil {
		t.Fatalf("%d keys, %v", len(all), lines.Err())
	}
	return all
}

// TestKeysAreComfyUIs: an adapter that ComfyUI merges into a weight, under whatever name,
// has to be merged into the same rows here.
func TestKeysAreComfyUIs(t *testing.T) {
	indices := map[string]*index{}
	failed := map[string]int{}
	all := keysOfComfyUI(t)
	for _, k := range all {
		x := indices[k.family]
		if x == nil {
			tensors := texts(all, k.family)
			if tensors == nil {
				tensors = small(t, k.family, names.ComfyUI)
			}
			x = newIndex(tensors, "")
			indices[k.family] = x
		}
		want := x.whole(t, k)
		got, _ := x.find(k.module, false)
		if got == nil && k.ofOtherFlux() {
			continue
		}
		if !slices.Equal(got, want) {
			if failed[k.family]++; failed[k.family] <= 5 {
				t.Errorf("%s: %s means %v, want %v of %s", k.family, k.module, got, want, k.tensor)
			}
		}
	}
	for family, n := range failed {
		t.Errorf("%s: %d keys", family, n)
	}
}

// texts are the tensors of text encoders, nil for another family.
func texts(all []key, family string) (tensors []checkpoint.Tensor) {
	seen := map[string]bool{}
	for _, k := range all {
		if k.family == family && strings.HasPrefix(family, "texts-") && !seen[k.tensor] {
			seen[k.tensor] = true
			tensors = append(tensors, checkpoint.Tensor{Tensor: safetensors.Tensor{Name: k.tensor, Dtype: safetensors.F32, Shape: []int{8, 8}}})
		}
	}
	return tensors
}

// ofOtherFlux reports whether a name is that of FLUX.2 in diffusers where the model is
// FLUX.1 or Chroma, or the reverse: ComfyUI has one map for all.
func (k *key) ofOtherFlux() bool {
	flat := strings.ReplaceAll(k.module, ".", "_")
	ends := func(all ...string) bool {
		return slices.ContainsFunc(all, func(end string) bool { return strings.HasSuffix(flat, end) })
	}
	single := strings.Contains(flat, "single_transformer_blocks")
	switch k.family {
	case "flux", "chroma":
		return ends("_to_qkv_mlp_proj", "_linear_in", "_linear_out") || single && ends("_attn_to_out")
	case "flux2":
		return strings.Contains(flat, "time_text_embed") || ends("_net_0_proj", "_net_2") || single && ends("_to_q", "_to_k", "_to_v", "_proj_mlp", "_proj_out")
	}
	return false
}

// whole is the place that ComfyUI says.
func (x *index) whole(t *testing.T, k key) []place {
	at := slices.IndexFunc(x.tensors, func(one checkpoint.Tensor) bool { return one.Name == k.tensor })
	if at < 0 {
		t.Fatalf("%s has no %s", k.family, k.tensor)
	}
	n := rowsOf(x.tensors[at].Shape)
	switch {
	case k.swapped:
		return []place{{at, n / 2, n}, {at, 0, n / 2}}
	case k.to > 0:
		return []place{{at, k.from, k.to}}
	}
	return []place{{at, 0, n}}
}

// TestKeysMeanTheSameRows: a model with diffusers' names is the same model, so that a key has
// to mean the rows there that those in ComfyUI's file become. Keys of fused layers mean
// several tensors.
func TestKeysMeanTheSameRows(t *testing.T) {
	indices, plans := map[string]*index{}, map[string]map[string][]names.Part{}
	several := 0
	for _, k := range keysOfComfyUI(t) {
		if strings.HasPrefix(k.family, "texts-") || k.ofOtherFlux() {
			continue
		}
		x := indices[k.family]
		if x == nil {
			x = newIndex(small(t, k.family, names.Diffusers), "transformer")
			indices[k.family], plans[k.family] = x, partsOfComfyUI(t, x.tensors)
		}
		parts := plans[k.family][k.tensor]
		if parts == nil {
			continue // diffusers has no such tensor
		}
		want := x.placesOf(parts, k)
		got, _ := x.find(k.module, false)
		if !slices.Equal(joined(got), joined(want)) {
			t.Errorf("%s: %s means %v, want %v", k.family, k.module, got, want)
		}
		if len(joined(got)) > 1 {
			several++
		}
	}
	if several < 50 {
		t.Errorf("%d keys mean several tensors", several)
	}
}

// partsOfComfyUI are the rows of diffusers' tensors that ComfyUI's consist of.
func partsOfComfyUI(t *testing.T, tensors []checkpoint.Tensor) map[string][]names.Part {
	t.Helper()
	var all []names.Tensor
	for _, one := range tensors {
		all = append(all, names.Tensor{Name: one.Name, Shape: one.Shape})
	}
	p, err := names.Make(all, names.ComfyUI)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string][]names.Part{}
	for _, o := range p.Outputs {
		parts[o.Name] = o.Parts
	}
	return parts
}

// placesOf are the rows that a key means, where what it means in ComfyUI's file consists of
// those parts.
func (x *index) placesOf(parts []names.Part, k key) (places []place) {
	n := 0
	for _, p := range parts {
		n += p.Rows()
	}
	spans := [][2]int{{0, n}}
	switch {
	case k.swapped:
		spans = [][2]int{{n / 2, n}, {0, n / 2}}
	case k.to > 0:
		spans = [][2]int{{k.from, k.to}}
	}
	for _, span := range spans {
		at := 0
		for _, p := range parts {
			from, to := max(span[0], at), min(span[1], at+p.Rows())
			if from < to {
				tensor := slices.IndexFunc(x.tensors, func(one checkpoint.Tensor) bool { return one.Name == p.Source })
				places = append(places, place{tensor, p.From + from - at, p.From + to - at})
			}
			at += p.Rows()
		}
	}
	return places
}

// joined joins rows that follow each other.
func joined(places []place) (all []place) {
	for _, p := range places {
		if n := len(all); n > 0 && all[n-1].tensor == p.tensor && all[n-1].to == p.from {
			all[n-1].to = p.to
			continue
		}
		all = append(all, p)
	}
	return all
}

// TestTextEncodersOfOneFile: a file with all of SDXL has its second text encoder under
// OpenCLIP's names, of which three layers are rows of one; adapters have the names of the
// other side. The VAE is nobody's.
func TestTextEncodersOfOneFile(t *testing.T) {
	var tensors []checkpoint.Tensor
	add := func(name string, shape ...int) {
		tensors = append(tensors, checkpoint.Tensor{Tensor: safetensors.Tensor{Name: name, Dtype: safetensors.F16, Shape: shape}})
	}
	clip, open := "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
	add(clip+"encoder.layers.0.self_attn.q_proj.weight", 768, 768)
	add(clip+"embeddings.token_embedding.weight", 10, 768)
	add(open+"transformer.resblocks.0.attn.in_proj_weight", 3840, 1280)
	add(open+"transformer.resblocks.0.attn.in_proj_bias", 3840)
	add(open+"transformer.resblocks.0.mlp.c_fc.weight", 5120, 1280)
	add(open+"token_embedding.weight", 10, 1280)
	add(open+"text_projection", 1280, 1280)
	add("model.diffusion_model.input_blocks.0.0.weight", 320, 4, 3, 3)
	add("first_stage_model.decoder.conv_in.weight", 4, 4, 3, 3)
	x := newIndex(tensors, "")
	for module, want := range map[string]place{
		"lora_te1_text_model_encoder_layers_0_self_attn_q_proj": {0, 0, 768},
		"lora_te2_text_model_encoder_layers_0_self_attn_k_proj": {2, 1280, 2560},
		"text_encoder_2.text_model.encoder.layers.0.mlp.fc1":    {4, 0, 5120},
		"lora_unet_input_blocks_0_0":                            {7, 0, 320},
	} {
		if got, _ := x.find(module, false); !slices.Equal(got, []place{want}) {
			t.Errorf("%s means %v, want %v", module, got, want)
		}
	}
	if got, ok := x.find("lora_te2_text_model_encoder_layers_0_self_attn_v_proj", true); !ok || !slices.Equal(got, []place{{3, 2560, 3840}}) {
		t.Errorf("a bias is %v", got)
	}
	for _, module := range []string{"lora_te1_text_model_encoder_layers_0_mlp_fc1", "decoder.conv_in", "lora_unet_decoder_conv_in", "lora_te_3"} {
		if got, ok := x.find(module, false); ok {
			t.Errorf("%s means %v", module, got)
		}
	}
}

// TestTurnedExperts: the experts that one side has turned are no place of the other side's
// changes, whose values lie in another order there.
func TestTurnedExperts(t *testing.T) {
	const layer, experts = "layers.0.mlp.router", "layers.0.mlp.experts.gate_up_proj"
	for _, side := range []names.Side{names.ComfyUI, names.Diffusers} {
		own := map[names.Side]string{names.ComfyUI: "", names.Diffusers: "model."}
		bank := map[names.Side]checkpoint.Tensor{
			names.ComfyUI:   {Tensor: safetensors.Tensor{Name: experts + ".weight", Dtype: safetensors.BF16, Shape: []int{3, 12, 8}}},
			names.Diffusers: {Tensor: safetensors.Tensor{Name: "model." + experts, Dtype: safetensors.BF16, Shape: []int{3, 8, 12}}},
		}
		tensors := []checkpoint.Tensor{bank[side]}
		for name, shape := range map[string][]int{"layers.0.self_attn.sinks": {4}, layer + ".weight": {3, 8}, "embed_tokens.weight": {9, 8}, "norm.weight": {8}} {
			tensors = append(tensors, checkpoint.Tensor{Tensor: safetensors.Tensor{Name: own[side] + name, Dtype: safetensors.BF16, Shape: shape}})
		}
		x := newIndex(tensors, "")
		for of, prefix := range own {
			if _, ok := x.find(prefix+layer, false); !ok {
				t.Errorf("%v: %s is not found", side, prefix+layer)
			}
			if _, ok := x.find(prefix+experts, false); ok != (of == side || side == names.Diffusers) { // which may leave its prefix out
				t.Errorf("%v: %s is found: %v", side, prefix+experts, ok)
			}
		}
	}
}
