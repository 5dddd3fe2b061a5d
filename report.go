package tensorpress

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/report"
)

// newReport lists the weights; tensors that are not weights count in the sums.
func newReport(source, dest string, p *plan.Plan, took time.Duration) *report.Report {
	r := &report.Report{
		Source: source, Dest: dest, Layout: p.Layout.Name, Preset: p.Preset, Layers: []report.Layer{},
		BytesIn: p.BytesIn, BytesOut: p.BytesOut, Notes: slices.Concat(p.Notes, p.Warnings), Seconds: took.Seconds(),
	}
	for _, f := range p.Files {
		r.Files = append(r.Files, f.Name)
	}
	r.Layers = make([]report.Layer, 0, len(p.Steps))
	for i := range p.Steps {
		if s := &p.Steps[i]; s.IsListed() {
			r.Layers = append(r.Layers, layerOf(p, s, took > 0))
		}
	}
	if len(p.Warnings) == 0 { // else no release loads it
		r.Needs = needsOf(p)
	}
	return r
}

// needsOf are those of the application that reads the layout, where releases are
// known.
func needsOf(p *plan.Plan) (needs []report.Need) {
	for _, a := range app.All() {
		if a.Layout != p.Layout.Name {
			continue
		}
		for i := range p.Steps {
			if f := formatOf(&p.Steps[i]); f != nil {
				needs = needed(needs, a, f, p.Steps[i].Layer)
			}
		}
	}
	return needs
}

// formatOf is that of a quantized layer of the output, nil for other tensors.
func formatOf(s *plan.Step) *codec.Format {
	if s.Dtype == "" || s.Format != nil {
		return s.Format
	}
	f, _ := codec.ByName(s.Dtype)
	return f
}

func layerOf(p *plan.Plan, s *plan.Step, measured bool) report.Layer {
	l := report.Layer{
		Name: s.Layer, Action: report.Action(s.Action), Reason: s.Reason, Dtype: s.Dtype,
		Options: reportOptions(s.Options), Shape: s.Source.Shape, BytesIn: s.Source.Size, BytesOut: s.BytesOut(),
	}
	if s.Settings.Dynamic && !measured {
		l.Dtype, l.BytesOut = "dynamic", l.BytesIn // at most
	}
	switch {
	case s.Action == plan.Drop:
		l.Dtype, l.Options = s.Source.Dtype.String(), report.Options{}
	case s.Action == plan.Keep && s.Dtype != "" && s.From == nil: // a layer whose description changes
		l.Action, l.Options = report.Describe, report.Options{}
	case s.Action == plan.Keep && len(s.Copies) == 0:
		l.Dtype, l.Options = s.Parts[0].Dtype.String(), report.Options{}
	}
	switch {
	case !p.Transcodes:
	case s.Move != nil:
		l.Action = report.Move
	case s.From != nil && s.Action == plan.Quantize:
		l.Action = report.Requantize
	case s.From != nil:
		l.Action = report.Dequantize
	}
	return l
}

// reportOptions are a description's as reports have them.
func reportOptions(o pyjson.Object) report.Options {
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
		return reportOptions(v)
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

// addLosses gives layers their errors.
func addLosses(r *report.Report, losses map[string][]sums) {
	for i := range r.Layers {
		found, ok := losses[r.Layers[i].Name]
		if !ok {
			continue
		}
		total := sums{nonfinite: -1}
		for _, s := range found {
			total.add(s)
		}
		r.Layers[i].Figures = &report.Figures{Error: total.error(), MaxAbs: finiteOrNil(total.maxAbs)}
	}
}
