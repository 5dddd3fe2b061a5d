// Package report holds what a run did or would do, what verification found, and
// what is in a checkpoint, as values that go to JSON and come back the same, but for
// what the doc of a field says.
package report

import "strconv"

// Report is what a conversion does or did, layer by layer.
type Report struct {
	Source   string  `json:"source,omitempty"`
	Dest     string  `json:"dest,omitempty"`
	Layout   string  `json:"layout"`           // "sdnq" or "comfy", "" where nothing is quantized
	Preset   string  `json:"preset,omitempty"` // and what told it; of a pipeline that of each component
	Layers   []Layer `json:"layers"`
	BytesIn  int64   `json:"bytes_in"`
	BytesOut int64   `json:"bytes_out"`
	// AtMost says that BytesOut is an upper bound, as that of each layer whose dtype is
	// yet to be measured.
	AtMost bool     `json:"bytes_out_at_most,omitempty"`
	Files  []string `json:"files,omitempty"`
	Notes  []string `json:"notes,omitempty"` // what matters most comes last
	// Needs are the releases of the application that are required to load the output,
	// if older ones do not load some of its layers.
	Needs []Need `json:"needs,omitempty"`
	// Total is the error over all layers; nil if none was measured.
	Total *Error `json:"total,omitempty"`
	// Merged is what is left of the changes of adapters over all layers; nil if none was
	// measured.
	Merged *Merged `json:"merged,omitempty"`
	// Budget is what was chosen to fit a size, nil where none was named.
	Budget *Budget `json:"budget,omitempty"`
	// Next is what to do with the output, nil where that is not known, and in a plan.
	Next *Next `json:"next,omitempty"`
	// Shards are the weight files of a run that keeps what is finished, with its part; nil of
	// another.
	Shards *Shards `json:"shards,omitempty"`
	// Provenance is there where a report was asked for: of what, by what and how the output
	// was made.
	Provenance *Provenance `json:"provenance,omitempty"`
	// Seconds is how long the run took, without measuring; 0 in a plan.
	Seconds float64 `json:"seconds,omitempty"`
}

// Layer is what becomes of one weight.
type Layer struct {
	Name   string `json:"name"`
	Action Action `json:"action"`
	Reason string `json:"reason"` // why it is kept, or not moved
	// Dtype is a name that tensorpress.Formats lists, or safetensors' name if the
	// weight is plain; "dynamic" in a plan that has yet to measure it.
	Dtype    string  `json:"dtype"`
	Options  Options `json:"options"` // what its description says
	Shape    []int   `json:"shape"`
	BytesIn  int64   `json:"bytes_in"`
	BytesOut int64   `json:"bytes_out"`
	// Weighed reports whether errors were weighed by moments of the layer's inputs.
	Weighed bool `json:"weighed,omitempty"`
	// Figures is nil if no error was measured.
	*Figures
}

// Action is what becomes of a weight.
type Action string

// The actions.
const (
	Quantize   Action = "quantize"
	Requantize Action = "requantize" // from the values that a quantized layer restores to
	Dequantize Action = "dequantize"
	Move       Action = "move"     // to another layout, codes as they are
	Describe   Action = "describe" // names and metadata change
	Keep       Action = "keep"
	Drop       Action = "drop"
)

// Error compares weights W with the values that are stored, Ŵ: RelMSE is Σ(W-Ŵ)² / ΣW²,
// in double precision; SQNR is -10·log10 of it, in dB. They are nil without a source,
// or if the figure is not finite.
type Error struct {
	RelMSE *float64 `json:"rel_mse"`
	SQNR   *float64 `json:"sqnr_db"`
}

// Figures are the error of one layer.
type Figures struct {
	Error
	MaxAbs *float64 `json:"max_abs"` // of W-Ŵ, nil where it is not finite
	// Merged is nil where no adapter was merged into the weight. W has its change in it.
	Merged *Merged `json:"merged,omitempty"`
}

// Merged is what is left of the change Δ that adapters make, when W+Δ is stored as Ŵ.
// Figures that are not finite are nil.
type Merged struct {
	Change *float64 `json:"change"` // ΣΔ² / Σ(W+Δ)²
	// Kept is Σ(Ŵ-W)·Δ / ΣΔ²: 1 where all of the change survives, 0 where nothing of it does.
	Kept *float64 `json:"kept"`
	// SNR is 10·log10(ΣΔ² / Σ(W+Δ-Ŵ)²), in dB: how far the change stands above what
	// rounding adds.
	SNR *float64 `json:"snr_db"`
}

// Need is a release of an application and the format that requires it.
type Need struct {
	Release string `json:"release"` // "comfyui ≥ 0.27.0"
	Format  string `json:"format"`
	Layers  int    `json:"layers"`
}

// Next is what to do with an output: where it goes, and what loads it.
type Next struct {
	App    string `json:"app"`
	Folder string `json:"folder,omitempty"` // where the application looks for it, below its own
	Node   string `json:"node,omitempty"`   // of ComfyUI
	Call   string `json:"call,omitempty"`   // in Python
	Text   string `json:"text"`             // all of it in one line
}

// Speed returns the bytes of the source processed per second, 0 for a plan.
func (r *Report) Speed() float64 {
	if r.Seconds == 0 {
		return 0
	}
	return float64(r.BytesIn) / r.Seconds
}

// Add copies the errors that a verification measured into the report.
func (r *Report) Add(v *Verification) {
	found := map[string]*LayerError{}
	for i := range v.Layers {
		found[v.Layers[i].Name] = &v.Layers[i]
	}
	for i := range r.Layers {
		if e := found[r.Layers[i].Name]; e != nil {
			r.Layers[i].Figures = &e.Figures
		}
	}
	r.Total, r.Merged = &v.Total, v.Merged
}

// Size formats a number of bytes for people: 1.5 GB.
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
