package tensorpress

import (
	"slices"
	"strconv"
	"time"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// Report is what a conversion does or did, layer by layer.
type Report struct {
	Source   string        `json:"source,omitempty"`
	Dest     string        `json:"dest,omitempty"`
	Layout   string        `json:"layout"`
	Preset   string        `json:"preset,omitempty"` // and what told it; of a pipeline that of each component
	Layers   []ReportLayer `json:"layers"`
	BytesIn  int64         `json:"bytes_in"`
	BytesOut int64         `json:"bytes_out"`
	Files    []string      `json:"files,omitempty"`
	Notes    []string      `json:"notes,omitempty"`
	// Needs are the releases of the application that load the output, where some
	// of its layers are not for older ones.
	Needs []Need `json:"needs,omitempty"`
	// Total is the error over all layers, nil unless [Options.Measure].
	Total *TotalError `json:"total,omitempty"`
	// Seconds is 0 in a plan; it does not count measuring.
	Seconds float64 `json:"seconds,omitempty"`
}

// ReportLayer is what becomes of one weight.
type ReportLayer struct {
	Name     string        `json:"name"`
	Action   string        `json:"action"` // "quantize", "requantize", "dequantize", "move", "describe", "keep" or "drop"
	Reason   string        `json:"reason"` // why it is kept, or not moved
	Dtype    string        `json:"dtype"`
	Options  pyjson.Object `json:"options"`
	Shape    []int         `json:"shape"`
	BytesIn  int64         `json:"bytes_in"`
	BytesOut int64         `json:"bytes_out"`
	// Figures are nil where no error was measured, see [Options.Measure].
	*Figures
}

// Figures are the error of one layer.
type Figures struct {
	TotalError
	MaxAbs *float64 `json:"max_abs"` // nil where it is not finite
}

// newReport lists the weights; tensors that are not weights count in the sums.
func newReport(source, dest string, p *plan.Plan, took time.Duration) *Report {
	r := &Report{
		Source: source, Dest: dest, Layout: p.Layout.Name, Preset: p.Preset, Layers: []ReportLayer{},
		BytesIn: p.BytesIn, BytesOut: p.BytesOut, Notes: slices.Concat(p.Notes, p.Warnings), Seconds: took.Seconds(),
	}
	for _, f := range p.Files {
		r.Files = append(r.Files, f.Name)
	}
	r.Layers = make([]ReportLayer, 0, len(p.Steps))
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
func needsOf(p *plan.Plan) (needs []Need) {
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

func layerOf(p *plan.Plan, s *plan.Step, measured bool) ReportLayer {
	l := ReportLayer{
		Name: s.Layer, Action: string(s.Action), Reason: s.Reason, Dtype: s.Dtype,
		Options: s.Options, Shape: s.Source.Shape, BytesIn: s.Source.Size, BytesOut: s.BytesOut(),
	}
	if s.Settings.Dynamic && !measured {
		l.Dtype, l.BytesOut = "dynamic", l.BytesIn // at most
	}
	switch {
	case s.Action == plan.Drop:
		l.Dtype, l.Options = s.Source.Dtype.String(), pyjson.Object{}
	case s.Action == plan.Keep && s.Dtype != "" && s.From == nil: // a layer whose description changes
		l.Action, l.Options = "describe", pyjson.Object{}
	case s.Action == plan.Keep && len(s.Copies) == 0:
		l.Dtype, l.Options = s.Parts[0].Dtype.String(), pyjson.Object{}
	}
	switch {
	case !p.Transcodes:
	case s.Move != nil:
		l.Action = "move"
	case s.From != nil && s.Action == plan.Quantize:
		l.Action = "requantize"
	case s.From != nil:
		l.Action = "dequantize"
	}
	return l
}

// Speed returns bytes of the source per second, 0 for a plan.
func (r *Report) Speed() float64 {
	if r.Seconds == 0 {
		return 0
	}
	return float64(r.BytesIn) / r.Seconds
}

// Size is a number of bytes as people read it: 1.5 GB.
func Size(n int64) string {
	units := []string{"kB", "MB", "GB", "TB"}
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n)/1000, 0
	for ; v >= 999.5 && unit < len(units)-1; unit++ {
		v /= 1000
	}
	digits := 0
	if v < 9.95 {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + units[unit]
}
