package tensorpress

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// models are what a source holds: one, or those components of a diffusers
// pipeline that are quantized.
type models struct {
	source string
	list   []*model
	// components are the folders of a pipeline, nil for one model.
	components []string
	others     *checkpoint.Others // of a pipeline, outside of the models
	witness    checkpoint.Witness // of them
}

// model is one of them under way.
type model struct {
	folder  string // in the pipeline, "" for a source that is one model
	c       *checkpoint.Checkpoint
	like    string // a quantized model whose settings it takes, if it is not --like itself
	plan    *plan.Plan
	others  *checkpoint.Others // beside its weights, for a destination that is a folder
	writers []*safetensors.Writer
	// restoration is that of a model that is quantized already; its Plan is plan.
	restoration *plan.Restoration
}

// named is a layer or a file as it is called in a pipeline.
func (one *model) named(name string) string {
	if one.folder == "" {
		return name
	}
	return one.folder + "/" + name
}

// note is one that says of which component it is.
func (one *model) note(text string) string {
	if one.folder == "" {
		return text
	}
	return one.folder + ": " + text
}

// quantizable are the beginnings of the names of a pipeline's components that
// are quantized; VAEs and the rest are copied.
var quantizable = []string{"transformer", "text_encoder", "unet"}

func readModels(source, like string) (*models, error) {
	m := &models{source: source}
	folders, found, err := pipelineOf(source)
	if err != nil {
		return nil, err
	}
	if found {
		m.components = folders
		return m, m.readPipeline(like)
	}
	c, err := checkpoint.Open(source)
	if err != nil {
		return nil, err
	}
	m.list = []*model{{c: c}}
	return m, nil
}

// errNothingDecided is that of a source in which there is nothing to do.
var errNothingDecided = errors.New("holds no quantized layer")

// readDecided opens the models of a source that hold quantized layers: those for
// which decide makes a plan.
func readDecided(source, dest string, copyWeights bool, decide func(*model) error) (*models, error) {
	folders, err := modelsOf(source)
	if err != nil {
		return nil, err
	}
	m := &models{source: source}
	if m.components, _, err = pipelineOf(source); err != nil {
		return nil, err
	}
	for _, folder := range folders {
		if err := m.addDecided(folder, decide); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	switch {
	case len(m.list) == 0:
		return nil, usage.SourceErrorf("%s %w", source, errNothingDecided)
	case m.isPipeline() && dest != "" && !isFolder(dest):
		return nil, errors.Join(usage.Errorf("%s must be a folder, since the source is a pipeline", dest), m.close())
	}
	if err := m.listOthers(dest, copyWeights); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *models) addDecided(folder string, decide func(*model) error) error {
	c, err := checkpoint.OpenPart(m.source, folder)
	if err != nil {
		return err
	}
	one := &model{folder: folder, c: c}
	err = decide(one)
	if err != nil && folder != "" && !strings.Contains(err.Error(), c.Path) {
		err = fmt.Errorf("%s: %w", folder, err)
	}
	if err != nil || one.plan == nil {
		return errors.Join(err, c.Close())
	}
	m.list = append(m.list, one)
	return nil
}

// readPipeline opens the components that are quantized: those of that kind, and
// where another pipeline's settings are taken, those that are quantized there.
func (m *models) readPipeline(like string) error {
	var likePipeline bool
	var err error
	if like != "" {
		_, likePipeline, err = pipelineOf(like)
	}
	for _, folder := range m.components {
		if !slices.ContainsFunc(quantizable, func(name string) bool { return strings.HasPrefix(folder, name) }) {
			continue
		}
		one := &model{folder: folder}
		if likePipeline {
			if one.like = within(like, folder); !isQuantized(one.like) {
				continue
			}
		}
		var opened error
		if one.c, opened = checkpoint.OpenPart(m.source, folder); opened != nil {
			return errors.Join(err, opened, m.close())
		}
		m.list = append(m.list, one)
	}
	switch {
	case err != nil:
		return errors.Join(err, m.close())
	case len(m.list) == 0 && likePipeline:
		return usage.SourceErrorf("%s: no component of it is quantized in %s", m.source, like)
	case len(m.list) == 0:
		return usage.SourceErrorf("%s: the pipeline has no component that is quantized: %s", m.source, strings.Join(quantizable, ", "))
	}
	return nil
}

// isQuantized reports whether a folder holds a quantized layer. One that cannot
// be read counts, so that whoever takes it says why.
func isQuantized(folder string) bool {
	if !holdsWeights(folder) {
		return false
	}
	c, err := checkpoint.Open(folder)
	if err != nil {
		return true
	}
	defer c.Close()
	m, err := layout.Read(c, nil)
	return err != nil || len(m.Layers) > 0
}

// listOthers finds what is copied to a folder, of each model and, of a pipeline,
// outside of those, and notes what is not.
func (m *models) listOthers(dest string, copyWeights bool) (err error) {
	for _, one := range m.list {
		if dest == "" || isFolder(dest) {
			if one.others, err = one.c.OtherFiles(copyWeights); err != nil {
				return err
			}
			one.plan.Notes = append(one.plan.Notes, dropDescriptions(one.c, one.others)...)
		}
		notes := slices.Concat(sourceNotes(one.c), leftOut(one.others))
		if one.others == nil {
			notes = append(notes, notRead(one.c.OtherWeights())...)
		}
		one.plan.Notes = append(notes, one.plan.Notes...) // what matters most stands last
	}
	if !m.isPipeline() {
		return nil
	}
	m.others, err = checkpoint.Listing{
		Dir: m.source, Described: m.components, CopyWeights: copyWeights, Witness: &m.witness,
		Skip: func(name string) bool {
			return slices.ContainsFunc(m.list, func(one *model) bool { return one.folder == name })
		},
	}.List()
	return err
}

func (m *models) close() error {
	var err error
	for _, one := range m.list {
		err = errors.Join(err, one.c.Close())
	}
	return err
}

func (m *models) isPipeline() bool { return m.list[0].folder != "" }

// unchanged fails if anything that was read is not what it was when it was.
func (m *models) unchanged() error {
	for _, one := range m.list {
		if err := one.c.Unchanged(); err != nil {
			return err
		}
	}
	return m.witness.Unchanged()
}

func (m *models) bytesIn() (n int64) {
	for _, one := range m.list {
		n += one.plan.BytesIn
	}
	return n
}

func (m *models) bytesOut() (n int64) {
	for _, one := range m.list {
		n += one.plan.BytesOut
	}
	return n
}
