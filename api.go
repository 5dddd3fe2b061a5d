package tensorpress

import (
	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/quality"
)

// FormatRow is a dtype that a layer can be stored in.
type FormatRow struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
	Bits    int      `json:"bits"`
	Min     float64  `json:"min"`
	Max     float64  `json:"max"`
	Storage string   `json:"storage"` // of the codes
	Layouts []string `json:"layouts"`
	// Loads are the applications that load it, by layout.
	Loads map[string][]string `json:"loads"`
	// Search says that a search for scales loses less than the plain ones.
	Search bool `json:"search"`
	// BitsPerWeight is what a value takes with all that is stored beside the codes, and
	// Error the sum of squared errors over that of squared weights, with the defaults on
	// a small real model, SearchedError with a search; 0 where layers are only read.
	BitsPerWeight float64 `json:"bits_per_weight,omitempty"`
	Error         float64 `json:"error,omitempty"`
	SearchedError float64 `json:"searched_error,omitempty"`
}

// Formats lists ComfyUI's own formats, then SDNQ's storable dtypes.
func Formats() []FormatRow {
	var rows []FormatRow
	for _, f := range codec.Formats() {
		if f != codec.SDNQ() {
			rows = append(rows, nativeRow(f).measured(f.Name))
		}
	}
	for _, t := range dtype.All() {
		if t.Storable() {
			rows = append(rows, sdnqRow(t).measured("sdnq:"+t.Name))
		}
	}
	return rows
}

// measured adds what the dtype of that name loses.
func (r FormatRow) measured(name string) FormatRow {
	q, _ := quality.Of(name)
	r.BitsPerWeight, r.Error, r.SearchedError = q.Bits, q.Plain, q.Searched
	return r
}

func nativeRow(f *codec.Format) FormatRow {
	least := -f.Max
	if f.Unsigned {
		least = 0
	}
	return FormatRow{
		Name: f.Name, Aliases: codec.Aliases(f.Name), Bits: f.Bits, Min: least, Max: f.Max, Storage: f.Storage.String(),
		Layouts: []string{"comfy"}, Loads: map[string][]string{"comfy": app.Loading(f, "comfy")},
		Search: f.Gains,
	}
}

func sdnqRow(t *dtype.Type) FormatRow {
	return FormatRow{
		Name: t.Name, Aliases: dtype.Aliases(t.Name), Bits: t.Bits, Min: t.Min, Max: t.Max, Storage: t.Storage.String(),
		Layouts: []string{"sdnq", "comfy"},
		Loads:   map[string][]string{"sdnq": app.LoadingSDNQ(t)},
		Search:  codec.GainsIn(t),
	}
}

// PresetRow is a model family.
type PresetRow struct {
	Name     string   `json:"name"`
	About    string   `json:"about"`
	SkipKeys []string `json:"skip_keys"` // in the sdnq layout
	Keeps    []string `json:"keeps"`     // parts of names, in the comfy layout
	// Safe are what names begin with that the comfy layout keeps as well, and that
	// convert_to_quant's preset, "ctq:" and the name, quantizes: inputs, time and text
	// projections, outputs.
	Safe        []string `json:"keeps_also"`
	MinNumel    int      `json:"min_numel"`
	MinChannels int      `json:"min_channels"`
}

// Presets lists every model family.
func Presets() []PresetRow {
	var rows []PresetRow
	for _, p := range preset.All() {
		rows = append(rows, PresetRow{p.Name, p.About, list(p.SkipKeys), list(p.Parts), list(p.Safe), p.MinNumel, p.MinChannels})
	}
	return rows
}

// PredictionLayers lists how layers of multi-token prediction are recognised, which every
// preset but "none" keeps.
func PredictionLayers() []string { return preset.Predictors() }

// list is never nil, which JSON would write as null.
func list(s []string) []string { return append([]string{}, s...) }
