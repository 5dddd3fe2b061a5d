package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/ctq"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/storage"
)

// CTQ does what convert_to_quant does with --simple, byte for byte where its
// result is defined, but for biases, which keep their values. An existing
// output is replaced, and its folder is made.
func CTQ(ctx context.Context, c *ctq.Command, r engine.Resources) (*report.Report, error) {
	from, dest := c.Text("input"), outputOfCTQ(c)
	if c.Text("dry_run") == "create-template" && c.Has("dry_run") {
		return template(from)
	}
	if !strings.HasSuffix(dest, ".safetensors") {
		return nil, usage.Errorf("-o %s must end in .safetensors", dest)
	}
	if _, err := os.Stat(from); err != nil {
		return nil, err
	}
	if c.Mode() != "" {
		return rewrite(ctx, c, from, dest, r)
	}
	o := Options{
		Layer: storage.Settings{ExactReference: new(true)}, Layout: layout.Comfy.Name, Preset: "none", Force: true,
		Threads: r.Threads, Memory: r.Memory, Progress: r.Progress,
	}
	report, err := quantize(ctx, files.Dir(from), files.Dir(dest), request{Options: o, ctq: c})
	if err != nil {
		return nil, err
	}
	report.Preset = "" // it has presets of its own, which the command line names
	report.Notes = append(c.Notes(), report.Notes...)
	return report, nil
}

// outputOfCTQ is -o, or the name that convert_to_quant makes.
func outputOfCTQ(c *ctq.Command) string {
	if c.Has("output") {
		return c.Text("output")
	}
	from := c.Text("input")
	return strings.TrimSuffix(from, filepath.Ext(from)) + c.Suffix()
}

// template writes the layer config to fill in that --dry-run create-template
// makes.
func template(from string) (*report.Report, error) {
	one, err := checkpoint.Open(source.Path(from))
	if err != nil {
		return nil, err
	}
	defer one.Close()
	name := strings.TrimSuffix(from, filepath.Ext(from)) + "_layer_config_template.json"
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if errors.Is(err, fs.ErrExist) { // and may be filled in
		return nil, usage.Existsf("%s exists: move it away for another one", name)
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(ctq.Template(one.Tensors))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return &report.Report{Source: from, Dest: name, Layout: layout.Comfy.Name, Layers: []report.Layer{}}, nil
}

// convertToQuant takes the rules of a command line of convert_to_quant.
func (o request) convertToQuant(p *plan.Options, tensors []checkpoint.Tensor) error {
	if o.ctq == nil {
		return nil
	}
	var names []string
	for _, t := range tensors {
		names = append(names, t.Name)
	}
	var layers *ctq.LayerConfig
	if o.ctq.Has("layer_config") {
		var err error
		if layers, err = readLayerConfig(o.ctq.Text("layer_config"), o.ctq.Has("fullmatch")); err != nil {
			return err
		}
	}
	conversion, err := o.ctq.Convert(names, layers)
	if err != nil {
		return usage.Wrap(err)
	}
	p.ListRules, p.Kept, p.Header = conversion.ListRules, conversion.Kept, conversion.Header
	if conversion.InputScales != "" {
		p.InputScales, err = readInputScales(conversion.InputScales)
	}
	return err
}

// biasNote says how many biases are not what convert_to_quant makes of them.
func biasNote(c *checkpoint.Checkpoint, p *plan.Plan) {
	n := 0
	for _, s := range p.Steps {
		if _, has := c.Lookup(s.Layer + ".bias"); has && s.Action == plan.Quantize {
			n++
		}
	}
	if n > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("biases of quantized layers keep their values (%d): convert_to_quant adds noise to them", n))
	}
}

// readInputScales reads numbers by layers from a JSON file, or the input scales
// of a checkpoint.
func readInputScales(path string) (map[string]float32, error) {
	switch filepath.Ext(path) {
	case ".json":
		text, err := checkpoint.ReadFile(path, checkpoint.MaxText)
		if err != nil {
			return nil, err
		}
		scales := map[string]float32{}
		if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &scales); err != nil {
			return nil, usage.Errorf("%s: want numbers by layers: %w", path, err)
		}
		return scales, nil
	case ".safetensors":
		return storedInputScales(path)
	}
	return nil, usage.Errorf("`InputScales` %s must end in .json or .safetensors", path)
}

func storedInputScales(path string) (map[string]float32, error) {
	c, err := checkpoint.Open(source.Path(path))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	scales := map[string]float32{}
	for _, t := range c.Tensors {
		layer, ok := strings.CutSuffix(t.Name, ".input_scale")
		if !ok {
			continue
		}
		if t.Numel() != 1 || !codec.Floats(t.Dtype) {
			return nil, usage.SourceErrorf("%s: %s is %s %v, want one number", path, t.Name, t.Dtype, t.Shape)
		}
		raw, value := make([]byte, t.Size), make([]float32, 1)
		if err := c.ReadSection(t, raw, 0); err != nil {
			return nil, err
		}
		codec.Widen(value, raw, t.Dtype)
		scales[layer] = value[0]
	}
	return scales, nil
}

// layerConfig takes the rules of a layer config: what their formats say, or,
// where the reference's bytes are asked for, what it makes of them.
func (o Options) layerConfig(p *plan.Options) error {
	if o.LayerConfig == "" {
		return nil
	}
	c, err := readLayerConfig(o.LayerConfig, false)
	if err != nil {
		return err
	}
	p.ListRules = c.Rules()
	if exact := o.Layer.ExactReference; exact != nil && *exact {
		p.ListRules, err = c.ExactRules(p.Flags)
	}
	return err
}

func readLayerConfig(path string, full bool) (*ctq.LayerConfig, error) {
	text, err := checkpoint.ReadFile(path, checkpoint.MaxText)
	if err != nil {
		return nil, err
	}
	c, err := ctq.ParseLayerConfig(text, full)
	if err != nil {
		return nil, usage.Errorf("%s: %w", path, err)
	}
	return c, nil
}
