package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// Inspect reads headers and metadata, no weights. In a pipeline, names begin
// with the folder of their component.
func Inspect(ctx context.Context, what files.Source) (*report.Inspection, error) {
	from := source.Of(ctx, what)
	folders, err := bundle.ModelsOf(from)
	if err != nil {
		return nil, err
	}
	v := &report.Inspection{Path: from.Path, Metadata: map[string]string{}, Layers: []report.StoredLayer{}, Tensors: []report.Tensor{}}
	for _, folder := range folders {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := inspectModel(v, from, folder); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// inspectModel adds one model.
func inspectModel(v *report.Inspection, from source.Source, folder string) error {
	c, err := checkpoint.OpenPart(from, folder)
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := layout.Read(c, nil)
	if err != nil {
		return usage.AsSource(err)
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
	v.Bytes += checkpoint.BytesOf(c.Tensors)
	return nil
}

func inspectLayer(l *layout.Layer, prefix string) report.StoredLayer {
	v := report.StoredLayer{
		Name: prefix + l.Name, Format: l.Format, Dtype: l.Dtype, Shape: l.Shape(), Options: ReportOptions(l.Options),
		Tensors: inspected(nil, l.Tensors, prefix), Bytes: checkpoint.BytesOf(l.Tensors),
	}
	if l.Err != nil {
		v.Problem = l.Err.Error()
	}
	return v
}

// inspected adds tensors to all.
func inspected(all []report.Tensor, tensors []checkpoint.Tensor, prefix string) []report.Tensor {
	all = slices.Grow(all, len(tensors))
	for _, t := range tensors {
		all = append(all, report.Tensor{Name: prefix + t.Name, Dtype: t.Dtype.String(), Shape: t.Shape, Bytes: t.Size})
	}
	return all
}

// ReportOptions are a description's as reports have them.
func ReportOptions(o pyjson.Object) report.Options {
	all := make(report.Options, len(o))
	for i, m := range o {
		all[i] = report.Option{Key: m.Key, Value: reportValue(m.Value)}
	}
	return all
}

// reportValue is a value as JSON brings it back.
func reportValue(v any) any {
	switch v := v.(type) {
	case pyjson.Object:
		return ReportOptions(v)
	case int:
		return json.Number(strconv.Itoa(v))
	case json.Number:
		if !json.Valid([]byte(v)) { // NaN or an infinity, which Python writes
			return v.String()
		}
	case []int:
		return reportList(v)
	case []string:
		return reportList(v)
	case []any:
		return reportList(v)
	}
	return v
}

func reportList[T any](list []T) []any {
	all := make([]any, len(list))
	for i, v := range list {
		all[i] = reportValue(v)
	}
	return all
}
