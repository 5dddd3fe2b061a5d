package layout

import (
	"fmt"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// headerLayers returns the entries of the header's _quantization_metadata under the
// names that the layers have in the file. They may differ, because programs add or
// remove prefixes of tensor names without changing the header.
func (m *Model) headerLayers() (pyjson.Object, error) {
	entries, err := headerEntries(m.Checkpoint)
	if err != nil {
		return nil, err
	}
	var layers, rest pyjson.Object
	for _, e := range entries {
		if m.hasWeight(e.Key) {
			layers = append(layers, e)
		} else {
			rest = append(rest, e)
		}
	}
	if len(rest) == 0 {
		return layers, nil
	}
	known := map[string]bool{}
	for _, e := range layers {
		known[e.Key] = true
	}
	from, to := m.swap(rest)
	for _, e := range rest {
		name, ok := m.swapped(e.Key, from, to)
		if _, own := m.Checkpoint.Lookup(name + metadataSuffix); ok && own { // ComfyUI uses this tensor, and does not find the entry
			continue
		}
		if !ok || known[name] {
			m.Unmatched = append(m.Unmatched, e.Key)
			continue
		}
		known[name] = true
		m.Renamed = append(m.Renamed, Renamed{name, e.Key})
		layers = append(layers, pyjson.Member{Key: name, Value: e.Value})
	}
	return layers, nil
}

func headerEntries(c *checkpoint.Checkpoint) (pyjson.Object, error) {
	text, ok := c.Metadata[HeaderKey]
	if !ok {
		return nil, nil
	}
	o, err := pyjson.ParseObject([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s: _quantization_metadata: %w", c.Path, err)
	}
	layers, _ := o.Get("layers")
	entries, _ := layers.(pyjson.Object)
	return entries, nil
}

func (m *Model) hasWeight(layer string) bool {
	_, ok := m.Checkpoint.Lookup(layer + weightSuffix)
	return ok
}

// prefixes are what programs put before the tensor names of a network.
var prefixes = []string{
	"", "model.diffusion_model.", "diffusion_model.", "model.model.", "net.", "model.", "transformer.", "unet.",
	"model.net.", "pipe.dit.", "dit.", "module.", "_orig_mod.", "text_encoder.", "text_encoders.", "text_model.", "language_model.", "model.language_model.",
}

// swap finds the prefix of the entries, and the prefix of tensors that replaced it: the
// pair by which most of the first entries have a weight.
func (m *Model) swap(entries pyjson.Object) (from, to string) {
	const some = 100
	entries = entries[:min(some, len(entries))]
	most := 0
	for _, p := range prefixes {
		for _, q := range prefixes {
			n := 0
			for _, e := range entries {
				if _, ok := m.swapped(e.Key, p, q); ok {
					n++
				}
			}
			if n > most {
				from, to, most = p, q, n
			}
		}
	}
	return from, to
}

// swapped replaces the prefix of a name, and reports whether there is a weight of the
// new name.
func (m *Model) swapped(name, from, to string) (string, bool) {
	rest, ok := strings.CutPrefix(name, from)
	if !ok || from == to {
		return "", false
	}
	return to + rest, m.hasWeight(to + rest)
}

// Describe puts the description of layers into a header's metadata.
func Describe(metadata map[string]string, layers pyjson.Object) {
	metadata[HeaderKey] = pyjson.Dump(pyjson.Object{{Key: "format_version", Value: "1.0"}, {Key: "layers", Value: layers}})
}
