package names

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// listed is a line of a file of testdata: a tensor of one side and the rows of the
// other side's that it consists of.
type listed struct {
	tensor Tensor
	parts  string
}

// golden is a file of testdata: what real programs make of a model's tensors.
type golden struct {
	sides [2][]listed
}

func (g *golden) tensors(s Side) (list []Tensor) {
	for _, l := range g.sides[s] {
		list = append(list, l.tensor)
	}
	return list
}

// readGolden reads lines of side, name, shape and parts, and of two names and a
// shape where a tensor is only renamed.
func readGolden(t *testing.T, path string) *golden {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var g golden
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Split(lines.Text(), "\t")
		if len(words) == 3 {
			shape := readShape(t, words[2])
			for side := range g.sides {
				all := Part{words[1-side], 0, rows(Tensor{Shape: shape})}
				g.sides[side] = append(g.sides[side], listed{Tensor{Name: words[side], Shape: shape}, shown([]Part{all})})
			}
			continue
		}
		if len(words) != 4 {
			t.Fatalf("%s: %q", path, lines.Text())
		}
		l := listed{tensor: Tensor{Name: words[1], Shape: readShape(t, words[2])}, parts: words[3]}
		side := ComfyUI
		if words[0] == "diffusers" {
			side = Diffusers
		}
		g.sides[side] = append(g.sides[side], l)
	}
	return &g
}

func readShape(t *testing.T, text string) (shape []int) {
	t.Helper()
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		shape = append(shape, n)
	}
	return shape
}

// shown is a part as the files have it.
func shown(parts []Part) string {
	var words []string
	for _, p := range parts {
		words = append(words, fmt.Sprintf("%s[%d:%d]", p.Source, p.From, p.To))
	}
	return strings.Join(words, " ")
}

func outputs(p *Plan) (lines []string) {
	for _, o := range p.Outputs {
		lines = append(lines, fmt.Sprintf("%s %v %s", o.Name, o.Shape, shown(o.Parts)))
	}
	slices.Sort(lines)
	return lines
}

func want(list []listed) (lines []string) {
	for _, l := range list {
		if l.parts != "" {
			lines = append(lines, fmt.Sprintf("%s %v %s", l.tensor.Name, l.tensor.Shape, l.parts))
		}
	}
	slices.Sort(lines)
	return lines
}

// TestRealPrograms: plans are what ComfyUI's and diffusers' own conversions make of
// the rows of every tensor, both ways.
func TestRealPrograms(t *testing.T) {
	files, err := filepath.Glob("testdata/*.tsv")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".tsv"), func(t *testing.T) {
			g := readGolden(t, path)
			for _, to := range []Side{ComfyUI, Diffusers} {
				if lines := want(g.sides[to]); len(lines) > 0 { // text encoders go one way
					p, err := Make(g.tensors(to.other()), to)
					if err != nil {
						t.Errorf("to %v: %v", to, err)
						continue
					}
					differs(t, outputs(p), lines)
				}
				kept, err := Make(g.tensors(to), to)
				if err != nil {
					t.Errorf("%v's own names: %v", to, err)
					continue
				}
				for _, o := range kept.Outputs {
					if !o.Renamed(rows(Tensor{Shape: o.Shape})) || o.Parts[0].Source != o.Name {
						t.Errorf("%v's own names: %s becomes %v", to, shown(o.Parts), o.Name)
					}
				}
			}
		})
	}
}

// TestRows: however an output is cut, its rows are those of its parts in their order.
func TestRows(t *testing.T) {
	parts := []Part{{"a", 2, 5}, {"b", 0, 1}, {"a", 0, 2}}
	for tile := 1; tile < 8; tile++ {
		var rows []string
		for from := 0; from < 6; from += tile {
			for p := range partRows(parts, from, min(from+tile, 6)) {
				for r := p.From; r < p.To; r++ {
					rows = append(rows, fmt.Sprint(p.Source, r))
				}
			}
		}
		if got, want := strings.Join(rows, " "), "a2 a3 a4 b0 a0 a1"; got != want {
			t.Errorf("tiles of %d: %s, want %s", tile, got, want)
		}
	}
}

// TestPrefix: what stands before all names of a checkpoint is left out, and what does
// not begin so is named.
func TestPrefix(t *testing.T) {
	g := readGolden(t, "testdata/flux.tsv")
	var tensors []Tensor
	for _, one := range g.tensors(ComfyUI) {
		one.Name = "model.diffusion_model." + one.Name
		tensors = append(tensors, one)
	}
	p, err := Make(tensors, Diffusers)
	if err != nil || p.Prefix != "model.diffusion_model." || len(p.Outputs) != len(g.sides[Diffusers]) {
		t.Fatalf("%v, %d outputs after %q", err, len(p.Outputs), p.Prefix)
	}
	_, err = Make(append(tensors, Tensor{Name: "first_stage_model.quant_conv.weight"}), Diffusers)
	if want := "first_stage_model.quant_conv.weight: lies outside of model.diffusion_model."; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestSameNames: a model that both sides call the same loses what stands before its
// names on the way to diffusers, and no more.
func TestSameNames(t *testing.T) {
	g := readGolden(t, "testdata/qwen-image.tsv")
	var tensors []Tensor
	for _, one := range g.tensors(ComfyUI) {
		one.Name = "model.diffusion_model." + one.Name
		tensors = append(tensors, one)
	}
	p, err := Make(tensors, Diffusers)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range p.Outputs {
		if o.Name != g.sides[Diffusers][i].tensor.Name || !o.Renamed(rows(tensors[i])) {
			t.Errorf("%s becomes %s", shown(o.Parts), o.Name)
		}
	}
	if p, err = Make(tensors, ComfyUI); err != nil || p.Outputs[0].Name != tensors[0].Name {
		t.Error(err, p.Outputs[0].Name)
	}
}

// TestLeftOut: what diffusers has none of, and can do without, is listed.
func TestLeftOut(t *testing.T) {
	for file, name := range map[string]string{"lumina2": "norm_final.weight", "pixart": "pos_embed", "qwen-image": "__index_timestep_zero__"} {
		g := readGolden(t, "testdata/"+file+".tsv")
		p, err := Make(append(g.tensors(ComfyUI), Tensor{Name: name, Shape: []int{8}}), Diffusers)
		if err != nil || !slices.Equal(p.LeftOut, []string{name}) || len(p.Outputs) != len(g.sides[Diffusers]) {
			t.Error(err, p.LeftOut)
		}
	}
	encoder := []Tensor{{Name: "encoder.block.0.layer.0.SelfAttention.k.weight"}, {Name: "spiece_model"}}
	for to, want := range map[Side]int{Diffusers: 1, ComfyUI: 2} {
		if p, err := Make(encoder, to); err != nil || len(p.Outputs) != want {
			t.Error(err, p)
		}
	}
}

// TestWants: what ComfyUI looks for in a file, and diffusers keeps elsewhere.
func TestWants(t *testing.T) {
	for file, want := range map[string]string{
		"umt5-encoder": "spiece_model", "t5-encoder": "", "gemma2": "spiece_model", "gemma3-vision": "spiece_model", "qwen3-base": "", "mistral3": "tekken_model",
		"qwen-image": "__index_timestep_zero__", "flux": "",
	} {
		tensors := readClass(t, "../../testdata/golden/families/"+file+".tsv")
		for _, there := range []bool{false, true} {
			if there && want != "" {
				if want == "tekken_model" || file == "gemma3-vision" || file == "gemma2" {
					continue // whose names are not yet ComfyUI's
				}
				tensors, want = append(tensors, Tensor{Name: want, Shape: []int{1}}), ""
			}
			p, err := Make(tensors, ComfyUI)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			for _, w := range p.Wants {
				got += w.Name
			}
			if got != want {
				t.Errorf("%s: wants %q, not %q", file, got, want)
			}
		}
		if p, err := Make(tensors, Diffusers); err != nil || p.Wants != nil {
			t.Errorf("%s, to diffusers: %v", file, err)
		}
	}
}

// TestLabels: what else a UNet is told has two names in diffusers, by the generation.
func TestLabels(t *testing.T) {
	g := readGolden(t, "testdata/sd15.tsv")
	for _, texts := range []int{1024, 2048} {
		tensors := append(g.tensors(ComfyUI), Tensor{Name: "label_emb.0.0.weight", Shape: []int{32, 64}})
		for i, one := range tensors {
			if strings.HasSuffix(one.Name, "attn2.to_k.weight") {
				tensors[i].Shape = []int{one.Shape[0], texts}
			}
		}
		there, err := Make(tensors, Diffusers)
		if err != nil {
			t.Fatal(err)
		}
		name := there.Outputs[len(there.Outputs)-1].Name
		if want := map[int]string{1024: "class_embedding.linear_1.weight", 2048: "add_embedding.linear_1.weight"}[texts]; name != want {
			t.Errorf("texts of %d: %s, want %s", texts, name, want)
		}
		back, err := Make(append(g.tensors(Diffusers), Tensor{Name: name, Shape: []int{32, 64}}), ComfyUI)
		if err != nil || back.Outputs[len(back.Outputs)-1].Name != "label_emb.0.0.weight" {
			t.Error(err)
		}
	}
}

// TestProblems: whatever has no place, or no one place, on the other side is an error
// that names it.
func TestProblems(t *testing.T) {
	diffusers, comfy := readGolden(t, "testdata/flux.tsv").tensors(Diffusers), readGolden(t, "testdata/flux.tsv").tensors(ComfyUI)
	without := func(list []Tensor, name string) []Tensor {
		return slices.DeleteFunc(slices.Clone(list), func(t Tensor) bool { return t.Name == name })
	}
	with := func(list []Tensor, name string, shape ...int) []Tensor {
		return append(without(list, name), Tensor{Name: name, Shape: shape})
	}
	const block = "transformer_blocks.0.attn."
	for _, c := range []struct {
		tensors []Tensor
		to      Side
		why     string
	}{
		{with(diffusers, "img_in.weight", 3), ComfyUI, "img_in.weight: is called as in ComfyUI, all else as in diffusers"},
		{slices.Concat(diffusers, comfy), ComfyUI, "more: is called as in ComfyUI"},
		{without(diffusers, block+"to_k.weight"), ComfyUI, block + "to_q.weight, " + block + "to_v.weight: would become double_blocks.0.img_attn.qkv.weight together with " + block + "to_k.weight, which the source lacks"},
		{with(diffusers, block+"to_k.weight", 128, 64), ComfyUI, "rows of [128 128] and [128 64] do not fit together"},
		{with(diffusers, block+"to_k.weight", 64, 128), ComfyUI, "cannot become double_blocks.0.img_attn.qkv.weight"},
		{with(diffusers, "single_transformer_blocks.0.attn.to_q.bias", 64), ComfyUI, "single_transformer_blocks.0.attn.to_q.bias has 64 rows, where a reader of the joined ones takes 128"},
		{with(diffusers, "norm_out.linear.bias", 255), ComfyUI, "norm_out.linear.bias: cannot become final_layer.adaLN_modulation.1.bias"},
		{with(comfy, "double_blocks.0.img_attn.norm.query_norm.weight", 128), Diffusers, "is not the only one to become " + block + "norm_q.weight"},
		{with(comfy, "double_blocks.0.img_attn.qkv.weight", 385, 128), Diffusers, "its rows do not divide"},
		{without(comfy, "single_blocks.0.linear1.weight"), Diffusers, "single_blocks.0.linear1.bias: its rows do not divide"},
	} {
		p, err := Make(c.tensors, c.to)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%v, want %q; %v", err, c.why, p)
		}
	}
	mixed := slices.Clone(diffusers)
	for i := range mixed {
		mixed[i].Dtype = "BF16"
	}
	mixed[slices.IndexFunc(mixed, func(t Tensor) bool { return t.Name == block+"to_v.weight" })].Dtype = "F32"
	if _, err := Make(mixed, ComfyUI); err == nil || !strings.Contains(err.Error(), "to_q.weight is BF16, "+block+"to_v.weight F32") {
		t.Error(err)
	}
	if _, err := Make([]Tensor{{Name: "model.weight"}}, ComfyUI); err != ErrUnknown {
		t.Error(err)
	}
	for _, sign := range []string{"controlnet_blocks.0.weight", "controlnet_x_embedder.weight"} {
		if _, err := Make(with(diffusers, sign, 3), ComfyUI); err != ErrControl {
			t.Errorf("%s: %v", sign, err)
		}
	}
}

// TestKept: tensors that no rule is for have their names on the other side too, without
// what stands before those of a checkpoint, and are listed.
func TestKept(t *testing.T) {
	g := readGolden(t, "testdata/flux.tsv")
	for to, prefix := range map[Side]string{ComfyUI: "", Diffusers: "model.diffusion_model."} {
		var tensors []Tensor
		for _, one := range append(g.tensors(to.other()), Tensor{Name: "ip_adapter.0.weight", Shape: []int{3, 4}}, Tensor{Name: "x"}) {
			one.Name = prefix + one.Name
			tensors = append(tensors, one)
		}
		p, err := Make(tensors, to)
		if err != nil || !slices.Equal(p.Kept, []string{prefix + "ip_adapter.0.weight", prefix + "x"}) || len(p.Outputs) != len(g.sides[to])+2 {
			t.Errorf("to %v: %v, %v", to, err, p)
			continue
		}
		for i, want := range []string{"ip_adapter.0.weight [3 4] " + prefix + "ip_adapter.0.weight[0:3]", "x [] " + prefix + "x[0:1]"} {
			o := p.Outputs[len(g.sides[to])+i]
			if got := fmt.Sprintf("%s %v %s", o.Name, o.Shape, shown(o.Parts)); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	}
}

// TestTables: a name of one side tells that of the other, with all its numbers.
func TestTables(t *testing.T) {
	for i := range families {
		f := &families[i]
		for _, r := range compile(f.blocks, newInventory([]Tensor{{Name: "joint_blocks.0.a"}}, ""), ComfyUI) {
			for _, d := range r.diffusers {
				if strings.Count(d.text, "#") != strings.Count(r.comfy.text, "#") && !r.none {
					t.Errorf("%s: %s and %s have not as many numbers", f.name, r.comfy.text, d.text)
				}
				if d.open != r.comfy.open && !r.none {
					t.Errorf("%s: %s and %s end otherwise", f.name, r.comfy.text, d.text)
				}
			}
			if r.swap && len(r.diffusers) != 1 {
				t.Errorf("%s: %s swaps halves of several", f.name, r.comfy.text)
			}
		}
	}
}

func differs(t *testing.T, got, want []string) {
	t.Helper()
	for _, line := range got {
		if _, ok := slices.BinarySearch(want, line); !ok {
			t.Errorf("got  %s", line)
		}
	}
	for _, line := range want {
		if _, ok := slices.BinarySearch(got, line); !ok {
			t.Errorf("want %s", line)
		}
	}
}

// TestPlanOf prints the plan of an inventory that the conformance script gives.
func TestPlanOf(t *testing.T) {
	path := os.Getenv("TENSORPRESS_NAMES_OF")
	if path == "" {
		t.Skip("for conformance/names/check.py")
	}
	g := readGolden(t, path)
	to := ComfyUI
	if len(g.sides[ComfyUI]) > 0 {
		to = Diffusers
	}
	p, err := Make(g.tensors(to.other()), to)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(p.Outputs, func(a, b Output) int { return cmp.Compare(a.Name, b.Name) })
	for _, o := range p.Outputs {
		fmt.Printf("plan\t%s\t%s\t%s\n", o.Name, strings.Trim(strings.ReplaceAll(fmt.Sprint(o.Shape), " ", ","), "[]"), shown(o.Parts))
	}
}

// TestExperts: ComfyUI's gpt-oss has the experts of a layer in one tensor, rows first,
// whatever a program that made the model has.
func TestExperts(t *testing.T) {
	at := func(name string, shape ...int) Tensor { return Tensor{Name: name, Shape: shape, Dtype: "BF16"} }
	const p = "model.layers.0."
	common := []Tensor{at("lm_head.weight", 9, 8), at("model.embed_tokens.weight", 9, 8), at("model.norm.weight", 8), at(p+"self_attn.sinks", 4)}
	fused := append(slices.Clone(common), at(p+"mlp.router.weight", 3, 8), at(p+"mlp.experts.gate_up_proj", 3, 8, 12), at(p+"mlp.experts.gate_up_proj_bias", 3, 12), at(p+"mlp.experts.down_proj", 3, 6, 8))
	apart := append(slices.Clone(common), at(p+"mlp.router.linear.weight", 12, 8))
	for i := range 12 {
		apart = append(apart, at(fmt.Sprintf("%smlp.experts.gate_up_projs.%d.weight", p, i), 12, 8), at(fmt.Sprintf("%smlp.experts.gate_up_projs.%d.bias", p, i), 12))
	}
	find := func(plan *Plan, name string) *Output {
		for i := range plan.Outputs {
			if plan.Outputs[i].Name == name {
				return &plan.Outputs[i]
			}
		}
		t.Fatalf("there is no %s among %v", name, plan.Outputs)
		return nil
	}
	plan, err := Make(fused, ComfyUI)
	if err != nil || len(plan.Kept) > 0 || !slices.Equal(plan.LeftOut, []string{"lm_head.weight"}) {
		t.Fatalf("%+v, %v", plan, err)
	}
	if o := find(plan, "layers.0.mlp.experts.gate_up_proj.weight"); !o.Turned || !slices.Equal(o.Shape, []int{3, 12, 8}) {
		t.Errorf("%+v", o)
	}
	if o := find(plan, "layers.0.mlp.experts.gate_up_proj.bias"); o.Turned || !slices.Equal(o.Shape, []int{3, 12}) {
		t.Errorf("%+v", o)
	}
	var comfy []Tensor
	for _, o := range plan.Outputs {
		comfy = append(comfy, at(o.Name, o.Shape...))
	}
	back, err := Make(comfy, Diffusers)
	if err != nil {
		t.Fatal(err)
	}
	if o := find(back, p+"mlp.experts.gate_up_proj"); !o.Turned || !slices.Equal(o.Shape, []int{3, 8, 12}) {
		t.Errorf("%+v", o)
	}
	plan, err = Make(apart, ComfyUI)
	if err != nil || len(plan.Kept) > 0 {
		t.Fatalf("%+v, %v", plan, err)
	}
	o := find(plan, "layers.0.mlp.experts.gate_up_proj.weight")
	if !slices.Equal(o.Shape, []int{12, 12, 8}) || len(o.Parts) != 12 || o.Parts[10] != (Part{p + "mlp.experts.gate_up_projs.10.weight", 0, 12}) {
		t.Errorf("%+v", o)
	}
	if o := find(plan, "layers.0.mlp.experts.gate_up_proj.bias"); !slices.Equal(o.Shape, []int{12, 12}) {
		t.Errorf("%+v", o)
	}
	find(plan, "layers.0.mlp.router.weight")
	lacks := slices.DeleteFunc(slices.Clone(apart), func(one Tensor) bool { return strings.Contains(one.Name, "projs.4.w") })
	if _, err := Make(lacks, ComfyUI); err == nil || !strings.Contains(err.Error(), "gate_up_projs.4.weight, which the source lacks") {
		t.Errorf("one expert less: %v", err)
	}
	three := append(slices.Clone(common), at(p+"mlp.router.weight", 2, 8))
	for i := range 2 {
		for _, half := range []string{"gate", "up"} {
			name := fmt.Sprintf("%smlp.experts.%d.%s_proj", p, i, half)
			three = append(three, at(name+".weight", 6, 8), at(name+".bias", 6))
		}
	}
	plan, err = Make(three, ComfyUI)
	if err != nil || len(plan.Kept) > 0 {
		t.Fatalf("%+v, %v", plan, err)
	}
	o = find(plan, "layers.0.mlp.experts.gate_up_proj.weight")
	if !slices.Equal(o.Shape, []int{2, 12, 8}) || o.Alternate != 2 || len(o.Parts) != 4 || o.Parts[1].Source != p+"mlp.experts.0.up_proj.weight" {
		t.Errorf("%+v", o)
	}
	if o := find(plan, "layers.0.mlp.experts.gate_up_proj.bias"); !slices.Equal(o.Shape, []int{2, 12}) || o.Alternate != 2 {
		t.Errorf("%+v", o)
	}
	lacks = slices.DeleteFunc(three, func(one Tensor) bool { return strings.HasSuffix(one.Name, "1.up_proj.weight") })
	if _, err := Make(lacks, ComfyUI); err == nil || !strings.Contains(err.Error(), "experts.1.up_proj.weight, which the source lacks") {
		t.Errorf("half an expert less: %v", err)
	}
	lacks = slices.DeleteFunc(slices.Clone(apart), func(one Tensor) bool { return strings.Contains(one.Name, "projs.11.") })
	if _, err := Make(lacks, ComfyUI); err == nil || !strings.Contains(err.Error(), "layers.0.mlp.experts.gate_up_proj.weight of 11 experts, and model.layers.0.mlp.router.linear.weight chooses from 12") {
		t.Errorf("the last expert is not there: %v", err)
	}
	other := slices.Clone(apart)
	other[len(other)-2].Shape = []int{12, 9}
	if _, err := Make(other, ComfyUI); err == nil || !strings.Contains(err.Error(), "gate_up_projs.11.weight BF16 [12 9]") {
		t.Errorf("an expert of another shape: %v", err)
	}
}
