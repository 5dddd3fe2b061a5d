package bundle

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/source"
)

// descriptions are files in a model's folder that say how its weights were
// quantized, beside those of which [layout.Read] makes something: of an output
// they would not be true.
var descriptions = []string{
	"quant_config.yaml", "quantization_config.yaml", "quant_log.csv", "quantization_map.json", "quanto_qmap.json", "qmodel_map.json",
	"smash_config.json", "gptq_config.json", "awq_config.json", "hqq_config.json",
}

// recipe is what LLM Compressor leaves beside a model. Others may call a file so.
const recipe = "recipe.yaml"

// describes reports whether a file of a source's folder, a slash path, tells how
// its weights were quantized.
func describes(c *checkpoint.Checkpoint, name string) bool {
	switch base := path.Base(name); {
	case base != name: // of a part that is copied as it is
		return false
	case name == recipe:
		return mentions(c, name, "Modifier:")
	default:
		known := slices.Contains(layout.DescriptionFiles, name) || slices.Contains(descriptions, name)
		return known || strings.HasPrefix(name, "quant_model_description") && strings.HasSuffix(name, ".json")
	}
}

// mentions looks for a word near the beginning of a file.
func mentions(c *checkpoint.Checkpoint, name, word string) bool {
	text, _ := source.Begin(c.Tree, c.Tree.Join(c.Dir, name), 1<<16)
	return bytes.Contains(text, []byte(word))
}

// dropDescriptions takes the files that tell how a source was quantized from those
// that are copied, and says so.
func dropDescriptions(c *checkpoint.Checkpoint, o *checkpoint.Others) (notes []string) {
	o.Files = slices.DeleteFunc(o.Files, func(name string) bool {
		if !describes(c, name) {
			return false
		}
		if name != layout.ConfigFile {
			notes = append(notes, name+" describes how the source was quantized: not copied")
		}
		return true
	})
	return notes
}
