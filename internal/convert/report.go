package convert

import (
	"fmt"
	"slices"
	"time"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/verify"
	"github.com/tensorpress/tensorpress/report"
)

// noteFormer says what the output does not have of the source's own words on how
// it was quantized.
func noteFormer(m *layout.Model, p *plan.Plan, folder bool) {
	if d := m.Declared; d != nil && (d.InHeader() || folder && d.Place == bundle.ModelConfig) {
		p.Notes = append(p.Notes, former(m, p))
	}
	for _, name := range m.Unmatched {
		p.Notes = append(p.Notes, fmt.Sprintf("the header describes a layer %s, of which there is no weight: left out", name))
	}
}

// former says what becomes of the config's own.
func former(m *layout.Model, p *plan.Plan) string {
	text := m.Declared.String()
	if len(m.Layers) == 0 {
		text += ", though all weights are plain,"
	}
	if p.Config != nil {
		return text + " is replaced by SDNQ's"
	}
	return text + " is left out"
}

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
	bounds := plan.Bounds{}
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.IsListed() {
			r.Layers = append(r.Layers, layerOf(p, s))
		}
		if s.Unmeasured() && took == 0 {
			l := &r.Layers[len(r.Layers)-1]
			most, more := bounds.Of(s)
			l.Dtype, l.BytesOut = "dynamic", most
			r.BytesOut, r.AtMost = r.BytesOut+more, true
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
				needs = verify.Needed(needs, a, f, p.Steps[i].Layer, p.Steps[i].Codec)
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

func layerOf(p *plan.Plan, s *plan.Step) report.Layer {
	l := report.Layer{
		Name: s.Layer, Action: report.Action(s.Action), Reason: s.Reason, Dtype: s.Dtype,
		Options: verify.ReportOptions(s.Options), Shape: s.Source.Shape, BytesIn: s.Source.Size, BytesOut: s.BytesOut(), Weighed: s.Action == plan.Quantize && s.Moments != nil,
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

// addLosses gives layers their errors.
func addLosses(r *report.Report, losses map[string][]engine.Sums) {
	for i := range r.Layers {
		found, ok := losses[r.Layers[i].Name]
		if !ok {
			continue
		}
		total := engine.Total(found)
		figures := total.Figures()
		r.Layers[i].Figures = &figures
	}
}
