package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress/report"
)

// htmlFlag is --html of inspect.
type htmlFlag struct{ path string }

func (h *htmlFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.path, "html", "", "also write everything as a page to `FILE`")
}

// check refuses a path in the checkpoint, or of a file that is no page.
func (h *htmlFlag) check(paths []string) error {
	if h.path == "" {
		return nil
	}
	return checkPlace("html", h.path, paths, []string{pageHead})
}

func (h *htmlFlag) write(v *report.Inspection) error {
	if h.path == "" {
		return nil
	}
	if err := writeWhole(h.path, []byte(inspectionPage(v).html())); err != nil {
		return fmt.Errorf("html: %w", err)
	}
	return nil
}

// inspectionPage returns the page for what a checkpoint holds.
func inspectionPage(v *report.Inspection) *page {
	p := &page{title: v.Path, metadata: v.Metadata}
	plain := plainTensors(v)
	p.fact("path", v.Path)
	if v.Part != "" {
		p.fact("part", v.Part+" alone: its folder or index is the whole model")
	}
	p.fact("layout", cmp.Or(v.Layout, "plain"))
	p.fact("layers", fmt.Sprintf("%d quantized", len(v.Layers)))
	p.fact("dtypes", dtypesText(v.Layers, plain))
	p.fact("tensors", fmt.Sprintf("%d, of which %d belong to no quantized layer", len(v.Tensors), len(plain)))
	p.fact("bytes", report.Size(v.Bytes))
	for i := range v.Layers {
		if l := &v.Layers[i]; l.Problem != "" {
			p.problems = append(p.problems, report.Problem{Tensor: l.Name, Problem: l.Problem})
		}
	}
	p.lists = []*list{listOfTree(tree(v)), listOfLayers(v.Layers), listOfTensors(plain)}
	return p
}

// dtypesText counts the dtypes of layers, then those of other tensors.
func dtypesText(layers []report.StoredLayer, plain []report.Tensor) string {
	quantized, others := map[string]int{}, map[string]int{}
	for i := range layers {
		quantized[cmp.Or(layers[i].Dtype, "unknown")]++
	}
	for i := range plain {
		others[plain[i].Dtype]++
	}
	return strings.Join(append(mostFirst(quantized), mostFirst(others)...), ", ")
}

func listOfTree(rows []treeRow) *list {
	l := newList("names", "Names, alike but for numbers", "rows", "name", "kind", "stored as", "count#", "shape", "bytes#", "problem")
	for _, r := range rows {
		kind := "tensor"
		if r.Layer {
			kind = "layer"
		}
		n := fmt.Sprint(r.Count)
		l.add(listCell{text: r.Name}, listCell{text: kind}, listCell{text: r.Stored}, listCell{n, n}, listCell{text: shapeText(r.Shape)}, sizeCell(r.Bytes), listCell{text: r.Problem})
	}
	return l
}

func listOfLayers(layers []report.StoredLayer) *list {
	l := newList("layers", "Quantized layers", "layers", "layer", "format", "dtype", "scale", "with", "shape", "bytes#", "problem", "options")
	for i := range layers {
		one := &layers[i]
		shape := "unknown"
		if one.Problem == "" {
			shape = shapeText(one.Shape)
		}
		l.add(listCell{text: one.Name}, listCell{text: one.Format}, listCell{text: one.Dtype}, listCell{text: scaleText(one.Options)}, listCell{text: partsText(one.Options)},
			listCell{text: shape}, sizeCell(one.Bytes), listCell{text: one.Problem}, listCell{text: pairsText(one.Options)})
	}
	return l
}

// pairsText returns options as key=value, in the order of the file.
func pairsText(o report.Options) string {
	var b strings.Builder
	for i, one := range o {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(one.Key + "=")
		switch v := one.Value.(type) {
		case string:
			b.WriteString(v)
		default:
			text, err := json.Marshal(v)
			if err != nil {
				text = []byte(fmt.Sprint(v))
			}
			b.Write(text)
		}
	}
	return b.String()
}

func listOfTensors(tensors []report.Tensor) *list {
	l := newList("tensors", "Other tensors", "tensors", "tensor", "dtype", "shape", "bytes#")
	for i := range tensors {
		t := &tensors[i]
		l.add(listCell{text: t.Name}, listCell{text: t.Dtype}, listCell{text: shapeText(t.Shape)}, sizeCell(t.Bytes))
	}
	return l
}

// writeMetadata writes the file's metadata; a long value is folded away, and what nobody
// would read is left to --json.
func (p *page) writeMetadata(b *strings.Builder) {
	const short, most = 100, 20_000
	if len(p.metadata) == 0 {
		return
	}
	b.WriteString("<h2>Metadata</h2>\n<dl>\n")
	for _, key := range slices.Sorted(maps.Keys(p.metadata)) {
		text := []rune(strings.ToValidUTF8(p.metadata[key], "\uFFFD"))
		fmt.Fprintf(b, "<dt>%s</dt><dd>", esc(key))
		if len(text) <= short {
			b.WriteString(esc(string(text)))
		} else {
			fmt.Fprintf(b, "<details><summary>%s… (%d characters)</summary><pre tabindex=\"0\">%s", esc(string(text[:short/2])), len(text), esc(string(text[:min(len(text), most)])))
			if len(text) > most {
				fmt.Fprintf(b, "… and %d more, which --json has", len(text)-most)
			}
			b.WriteString("</pre></details>")
		}
		b.WriteString("</dd>\n")
	}
	b.WriteString("</dl>\n")
}
