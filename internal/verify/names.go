package verify

import (
	"errors"
	"fmt"

	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/renamed"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// componentOf is what a file with ComfyUI's names was made of: of a pipeline the
// diffusion model, as quantize takes it.
func componentOf(v *report.Verification, from, checked source.Source, folders []string) (source.Source, error) {
	wanted, err := bundle.ModelsOf(from)
	if err != nil || folders[0] != "" || wanted[0] == "" || !isComfys(checked) {
		return from, err
	}
	folder, err := bundle.Denoiser(from)
	if err == nil {
		v.Notes = append(v.Notes, fmt.Sprintf("`Source`: of the pipeline, %s is what the file is compared with", folder))
	}
	return from.In(folder), err
}

// isComfys reports whether a checkpoint has ComfyUI's names. One that cannot be read is
// told of elsewhere.
func isComfys(s source.Source) bool {
	c, err := checkpoint.Open(s)
	if err != nil {
		return false
	}
	defer c.Close()
	var all []names.Tensor
	for _, t := range c.Tensors {
		all = append(all, names.Tensor{Name: t.Name})
	}
	found, err := names.Find(all)
	return err == nil && found.Side == names.ComfyUI
}

// renameSource gives the source the other side's names, where it has those of the output
// then. What became of its tensors under them is what the output is compared with.
func (v *verification) renameSource() error {
	least := v.apart(v.sourceModel)
	if least == 0 || v.sourceModel.Failed() != nil {
		return nil
	}
	alien := least > len(v.model.Plain)+len(v.model.Layers) // hardly a name is the same
	var best *layout.Model
	for _, side := range []names.Side{names.ComfyUI, names.Diffusers} {
		m, _, err := renamed.Model(v.sourceModel, renamed.Options{To: side, Dtype: plan.DtypeIn(v.sourceModel)})
		switch {
		case errors.Is(err, names.ErrUnknown), errors.Is(err, names.ErrControl):
			return nil
		case err != nil && alien:
			return err
		case err == nil && v.apart(m) < least:
			best, least = m, v.apart(m)
		}
	}
	if best == nil {
		return nil
	}
	v.takeSource(best)
	m, err := layout.ReadAs(v.output, best) // of padded layers the source tells the shape
	if err != nil {
		return usage.AsSource(err)
	}
	v.model = m
	return nil
}

// takeSource compares with a source as it is under other names.
func (v *verification) takeSource(m *layout.Model) {
	v.sourceModel = m
	v.sourceLayers, v.sourcePlain = map[string]*layout.Layer{}, map[string]checkpoint.Tensor{}
	for _, l := range m.Layers {
		v.sourceLayers[l.WeightName()] = l
	}
	for _, t := range m.Plain {
		v.sourcePlain[t.Name] = t
	}
}

// apart is how many tensors the output and a source do not both have.
func (v *verification) apart(from *layout.Model) (n int) {
	there := map[string]bool{}
	for name := range restored(v.model) {
		there[name] = true
	}
	for name := range restored(from) {
		if !there[name] {
			n++
		}
		delete(there, name)
	}
	return n + len(there)
}
