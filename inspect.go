package tensorpress

import (
	"context"
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// Inspection is what is in a checkpoint.
type Inspection struct {
	Path     string            `json:"path"`
	Layout   string            `json:"layout"`         // "" where nothing is quantized
	Part     string            `json:"part,omitempty"` // what it is of a model, where it is not all
	Metadata map[string]string `json:"metadata"`
	Layers   []InspectedLayer  `json:"layers"`  // the quantized ones
	Tensors  []InspectedTensor `json:"tensors"` // all
	Bytes    int64             `json:"bytes"`   // of all tensors
}

// InspectedLayer is a quantized layer.
type InspectedLayer struct {
	Name    string            `json:"name"`
	Format  string            `json:"format"`
	Dtype   string            `json:"dtype"`
	Shape   []int             `json:"shape"` // of the weight before it was quantized
	Options pyjson.Object     `json:"options"`
	Tensors []InspectedTensor `json:"tensors"`
	Bytes   int64             `json:"bytes"`
	Problem string            `json:"problem,omitempty"` // why it cannot be decoded
}

// InspectedTensor is a stored tensor.
type InspectedTensor struct {
	Name  string `json:"name"`
	Dtype string `json:"dtype"`
	Shape []int  `json:"shape"`
	Bytes int64  `json:"bytes"`
}

// Inspect reads headers and metadata, no weights. In a pipeline, names begin
// with the folder of their component.
func Inspect(ctx context.Context, path string) (*Inspection, error) {
	folders, err := modelsOf(path)
	if err != nil {
		return nil, err
	}
	v := &Inspection{Path: path, Metadata: map[string]string{}, Layers: []InspectedLayer{}, Tensors: []InspectedTensor{}}
	for _, folder := range folders {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := v.add(path, folder); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// add inspects one model.
func (v *Inspection) add(path, folder string) error {
	c, err := checkpoint.OpenPart(path, folder)
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := layout.Read(c, nil)
	if err != nil {
		return asSource(err)
	}
	prefix := ""
	if folder != "" {
		prefix = folder + "/"
	}
	for key, text := range c.Metadata {
		v.Metadata[prefix+key] = text
	}
	if c.Part != nil {
		v.Part = fmt.Sprintf("shard %d of %d", c.Part.Number, c.Part.Of)
	}
	if m.Layout != nil && v.Layout == "" {
		v.Layout = m.Layout.Name
	}
	for _, l := range m.Layers {
		v.Layers = append(v.Layers, inspectLayer(l, prefix))
	}
	v.Tensors = inspected(v.Tensors, c.Tensors, prefix)
	v.Bytes += bytesOf(c.Tensors)
	return nil
}

func inspectLayer(l *layout.Layer, prefix string) InspectedLayer {
	v := InspectedLayer{
		Name: prefix + l.Name, Format: l.Format, Dtype: l.Dtype, Shape: l.Shape(), Options: l.Options,
		Tensors: inspected(nil, l.Tensors, prefix), Bytes: bytesOf(l.Tensors),
	}
	if l.Err != nil {
		v.Problem = l.Err.Error()
	}
	return v
}

// inspected adds tensors to all.
func inspected(all []InspectedTensor, tensors []checkpoint.Tensor, prefix string) []InspectedTensor {
	all = slices.Grow(all, len(tensors))
	for _, t := range tensors {
		all = append(all, InspectedTensor{prefix + t.Name, t.Dtype.String(), t.Shape, t.Size})
	}
	return all
}

func bytesOf(tensors []checkpoint.Tensor) (n int64) {
	for _, t := range tensors {
		n += t.Size
	}
	return n
}
