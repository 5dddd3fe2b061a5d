package names

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// recognised are the models of the golden files of families, in the names of
// diffusers' and transformers' classes and in those of single files, and what they are
// taken for. No other is known.
var recognised = map[string]string{
	"auraflow":             "AuraFlow, diffusers",
	"autoencoder-kl":       "AutoencoderKL, diffusers",
	"chroma":               "Chroma, diffusers",
	"chrono-edit":          "Wan, diffusers",
	"clip-text":            "CLIP text encoder, diffusers",
	"clip-text-projection": "CLIP text encoder, diffusers",
	"flux":                 "FLUX.1, diffusers",
	"flux2":                "FLUX.2, diffusers",
	"gemma2":               "language model, diffusers",
	"gemma3":               "language model, diffusers",
	"gpt-oss":              "gpt-oss, diffusers",
	"gemma3-vision":        "Gemma 3 that also sees, diffusers",
	"hidream":              "HiDream-I1, diffusers",
	"hunyuan-video":        "Hunyuan Video, diffusers",
	"llama":                "language model, diffusers",
	"llama-base":           "language model without a prefix, diffusers",
	"llama-tied":           "language model, diffusers",
	"ltx":                  "LTX, diffusers",
	"ltx2":                 "LTX-2, diffusers",
	"lumina2":              "Lumina 2, diffusers",
	"mistral":              "language model, diffusers",
	"mistral3":             "Mistral that also sees, diffusers",
	"mixtral":              "language model, diffusers",
	"pixart":               "PixArt, diffusers",
	"pixart-alpha":         "PixArt, diffusers",
	"qwen-image":           "Qwen-Image, diffusers",
	"qwen2":                "language model, diffusers",
	"qwen2-moe":            "language model, diffusers",
	"qwen2.5-vl":           "language model, diffusers",
	"qwen3":                "language model, diffusers",
	"qwen3-base":           "language model without a prefix, diffusers",
	"qwen3-moe":            "language model, diffusers",
	"qwen3-vl":             "language model, diffusers",
	"sd15-unet":            "UNet of Stable Diffusion 1, 2 or XL, diffusers",
	"sd3":                  "Stable Diffusion 3, diffusers",
	"sd3-dual":             "Stable Diffusion 3, diffusers",
	"sdxl-unet":            "UNet of Stable Diffusion 1, 2 or XL, diffusers",
	"single/auraflow":      "AuraFlow, ComfyUI",
	"single/chroma":        "Chroma, ComfyUI",
	"single/flux":          "FLUX.1, ComfyUI",
	"single/flux2":         "FLUX.2, ComfyUI",
	"single/hunyuan-video": "Hunyuan Video, ComfyUI",
	"single/ltx":           "LTX, ComfyUI",
	"single/ltx2":          "LTX-2, ComfyUI",
	"single/lumina2":       "Lumina 2, ComfyUI",
	"single/mistral":       "language model, diffusers",
	"single/pixart":        "PixArt, ComfyUI",
	"single/qwen-image":    "Qwen-Image, diffusers",
	"single/qwen3":         "language model, diffusers",
	"single/qwen3-vl":      "language model, diffusers",
	"single/sd15-unet":     "UNet of Stable Diffusion 1, 2 or XL, ComfyUI",
	"single/sd3":           "Stable Diffusion 3, ComfyUI",
	"single/sdxl-unet":     "UNet of Stable Diffusion 1, 2 or XL, ComfyUI",
	"single/t5":            "T5, diffusers",
	"single/wan":           "Wan, ComfyUI",
	"single/wan-i2v":       "Wan, ComfyUI",
	"single/z-image":       "Z-Image, ComfyUI",
	"t5":                   "T5, diffusers",
	"t5-encoder":           "T5, diffusers",
	"umt5-encoder":         "T5, diffusers",
	"wan":                  "Wan, diffusers",
	"wan-i2v":              "Wan, diffusers",
	"wan-vace":             "Wan, diffusers",
	"z-image":              "Z-Image, diffusers",
	"z-image-omni":         "Z-Image, diffusers",
}

// TestEveryClass: a model is taken for its own family, and none of the others for one,
// and all that a class has has another name.
func TestEveryClass(t *testing.T) {
	const folder = "../../testdata/golden/families"
	got := map[string]string{}
	for _, glob := range []string{"*.tsv", "single/*.tsv"} {
		files, err := filepath.Glob(filepath.Join(folder, glob))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, path := range files {
			name, err := filepath.Rel(folder, strings.TrimSuffix(path, ".tsv"))
			if err != nil {
				t.Fatal(err)
			}
			name = filepath.ToSlash(name)
			tensors := readClass(t, path)
			f, err := Find(tensors)
			if err != nil {
				continue
			}
			got[name] = f.Family + ", " + f.Side.String()
			to := Diffusers
			if f.Side == Diffusers || f.Same || slices.Contains(narrow, name) {
				to = ComfyUI
			}
			if p, err := Make(tensors, to); err != nil || len(p.Kept) > 0 {
				t.Errorf("%s: %v, %v have no other names", name, err, p)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if got[name] != recognised[name] {
			t.Errorf("%q: %q,", name, got[name])
		}
	}
	for name, family := range recognised {
		if got[name] == "" {
			t.Errorf("%s is not recognised as %s", name, family)
		}
	}
}

// narrow are models with fewer rows in a layer than the real ones have columns.
var narrow = []string{"single/flux", "single/chroma", "single/hunyuan-video"}

// readClass reads names and shapes.
func readClass(t *testing.T, path string) (tensors []Tensor) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		words := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		switch {
		case strings.HasPrefix(line, "#"), words[0] == "config", words[0] == "list", words[0] == "preset", len(words) < 2:
			continue
		}
		var shape []int
		for word := range strings.FieldsFuncSeq(words[1], func(r rune) bool { return r == 'x' }) {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatalf("%s: %q", path, line)
			}
			shape = append(shape, n)
		}
		tensors = append(tensors, Tensor{Name: words[0], Shape: shape})
	}
	return tensors
}
