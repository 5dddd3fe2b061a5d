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
	for _, k := range keysOfComfyUI(t) {
		x := indices[k.family]
		if x == nil {
			x = newIndex(small(t, k.family, names.ComfyUI), "")
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
