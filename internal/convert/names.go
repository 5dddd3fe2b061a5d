package convert

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/renamed"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// naming is whose names an output has.
type naming struct {
	names.Side
	asked bool // else the source's
	// component is the folder of the pipeline that is taken, "" for all of a source.
	component string
}

func namingOf(word string) (naming, error) {
	switch word {
	case "", "keep":
		return naming{}, nil
	case "comfyui":
		return naming{Side: names.ComfyUI, asked: true}, nil
	case "diffusers":
		return naming{Side: names.Diffusers, asked: true}, nil
	}
	return naming{}, usage.Errorf("`Names` %s: want comfyui, diffusers or keep%s", word, suggest.Hint(word, []string{"comfyui", "diffusers", "keep"}))
}

// forComfyUI reports whether the output is a file for ComfyUI.
func (n naming) forComfyUI() bool { return n.asked && n.Side == names.ComfyUI }

// of resolves what a command was given: with ComfyUI's names the output is one file, and
// of a pipeline it holds the diffusion model.
func (n *naming) of(s source.Source, dest string) (source.Source, string, error) {
	if !n.forComfyUI() {
		return s, dest, nil
	}
	switch {
	case dest == "":
		dest = "output.safetensors"
	case bundle.IsFolder(dest):
		return s, dest, usage.Errorf("%s must end in .safetensors: with ComfyUI's names the output is one file", dest)
	}
	folder, err := bundle.Denoiser(s)
	n.component = folder
	return s.In(folder), dest, err
}

// like is the component of a pipeline whose settings are taken for the one that n takes,
// and all else as it is.
func (n naming) like(s *source.Source) (*source.Source, error) {
	if s == nil || n.component == "" {
		return s, nil
	}
	folders, err := bundle.ModelsOf(*s)
	if err != nil || folders[0] == "" {
		return s, err
	}
	if !slices.Contains(folders, n.component) {
		return nil, usage.Errorf("`Like` %s is a pipeline without a %s: name the folder of the component that is meant", s.Path, n.component)
	}
	return new(s.In(n.component)), nil
}

// plain says of a source in which nothing is quantized how its names are changed.
func (n naming) plain(err error) error {
	if n.asked && errors.Is(err, bundle.ErrNothingDecided) {
		return fmt.Errorf("%w: for other names alone, quantize with `Keep` . and `Names`", err)
	}
	return err
}

// model is m with the names that were asked for. codes tells that its layers are moved
// as they are stored.
func (n naming) model(m *layout.Model, codes bool) (*layout.Model, []string, error) {
	if !n.asked {
		return m, nil, nil
	}
	if err := m.Failed(); err != nil {
		return nil, nil, usage.Source(err)
	}
	if kind, sign := preset.AddonOf(m.Checkpoint.Metadata, shapes(m.Checkpoint.Tensors)); kind != "" {
		return nil, nil, usage.Errorf("%s is %s (%s), of which other names are not known: leave `Names` out", m.Checkpoint.Path, kind, sign)
	}
	named, notes, err := renamed.Model(m, renamed.Options{To: n.Side, Codes: codes, Dtype: plan.DtypeIn(m)})
	if text := plan.Wrapped(m.Checkpoint.Tensors); text != "" && errors.Is(err, names.ErrUnknown) {
		err = usage.Errorf("%s: %s", m.Checkpoint.Path, text)
	}
	if n.component != "" {
		notes = append(notes, fmt.Sprintf("of the pipeline, the file holds %s alone", n.component))
	}
	return named, notes, err
}
