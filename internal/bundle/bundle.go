// Package bundle is what a source is, one model or a diffusers pipeline, and what
// stands beside its weights, there and in an output.
package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// Bundle is the models that a source holds: one, or those components of a diffusers
// pipeline that are quantized.
type Bundle struct {
	Source source.Source
	Models []*Model
	// components are the folders of a pipeline, nil for one model.
	components []string
	borrowed   bool               // the checkpoints are another bundle's, which closes them
	Others     *checkpoint.Others // of a pipeline, outside of the models
	witness    checkpoint.Witness // of them
}

// Model is one of a bundle's models under way.
type Model struct {
	Folder     string // in the pipeline, "" for a source that is one model
	Checkpoint *checkpoint.Checkpoint
	Like       *source.Source // a quantized model whose settings it takes, if it is not the one that was named
	Plan       *plan.Plan
	others     *checkpoint.Others // beside its weights, for a destination that is a folder
	Writers    []*bodies.Writer
	// Restoration is that of a model that is quantized already; its Plan is plan.
	Restoration *plan.Restoration
}

// Named is a layer or a file as it is called in a pipeline.
func (one *Model) Named(name string) string {
	if one.Folder == "" {
		return name
	}
	return one.Folder + "/" + name
}

// Note is one that says of which component it is.
func (one *Model) Note(text string) string {
	if one.Folder == "" {
		return text
	}
	return one.Folder + ": " + text
}

// quantizable are the beginnings of the names of a pipeline's components that
// are quantized; VAEs and the rest are copied.
var quantizable = []string{"transformer", "text_encoder", "unet"}

// ReadModels opens the models of a source that are quantized; like is a quantized
// model, or a pipeline, whose settings are taken, nil for none.
func ReadModels(s source.Source, like *source.Source) (*Bundle, error) {
	m := newBundle(s)
	folders, found, err := pipelineOf(s)
	if err != nil {
		return nil, err
	}
	if found {
		m.components = folders
		return m, m.readPipeline(like)
	}
	c, err := checkpoint.Open(s)
	if err != nil {
		return nil, err
	}
	m.Models = []*Model{{Checkpoint: c}}
	return m, nil
}

func newBundle(s source.Source) *Bundle {
	return &Bundle{Source: s, witness: checkpoint.Witness{Tree: s.Tree}}
}

// ErrNothingDecided is that of a source in which there is nothing to do.
var ErrNothingDecided = errors.New("holds no quantized layer")

// ReadDecided opens the models of a source that hold quantized layers: those for
// which decide makes a plan.
func ReadDecided(s source.Source, dest string, copyWeights bool, decide func(*Model) error) (*Bundle, error) {
	folders, err := ModelsOf(s)
	if err != nil {
		return nil, err
	}
	m := newBundle(s)
	if m.components, _, err = pipelineOf(s); err != nil {
		return nil, err
	}
	for _, folder := range folders {
		if err := m.addDecided(folder, decide); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	switch {
	case len(m.Models) == 0:
		return nil, usage.SourceErrorf("%s %w", s.Path, ErrNothingDecided)
	case m.IsPipeline() && dest != "" && !IsFolder(dest):
		return nil, errors.Join(usage.Errorf("%s must be a folder, since the source is a pipeline", dest), m.Close())
	}
	if err := m.ListOthers(dest, copyWeights); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Bundle) addDecided(folder string, decide func(*Model) error) error {
	c, err := checkpoint.OpenPart(m.Source, folder)
	if err != nil {
		return err
	}
	one := &Model{Folder: folder, Checkpoint: c}
	err = decide(one)
	if err != nil && folder != "" && !strings.Contains(err.Error(), c.Path) {
		err = fmt.Errorf("%s: %w", folder, err)
	}
	if err != nil || one.Plan == nil {
		return errors.Join(err, c.Close())
	}
	m.Models = append(m.Models, one)
	return nil
}

// readPipeline opens the components that are quantized: those of that kind, and
// where another pipeline's settings are taken, those that are quantized there.
func (m *Bundle) readPipeline(like *source.Source) error {
	var likePipeline bool
	var err error
	if like != nil {
		_, likePipeline, err = pipelineOf(*like)
	}
	for _, folder := range m.components {
		if !slices.ContainsFunc(quantizable, func(name string) bool { return strings.HasPrefix(folder, name) }) {
			continue
		}
		one := &Model{Folder: folder}
		if likePipeline {
			part := like.In(folder)
			if one.Like = &part; !isQuantized(part) {
				continue
			}
		}
		var opened error
		if one.Checkpoint, opened = checkpoint.OpenPart(m.Source, folder); opened != nil {
			return errors.Join(err, opened, m.Close())
		}
		m.Models = append(m.Models, one)
	}
	switch {
	case err != nil:
		return errors.Join(err, m.Close())
	case len(m.Models) == 0 && likePipeline:
		return usage.SourceErrorf("%s: no component of it is quantized in %s", m.Source.Path, like.Path)
	case len(m.Models) == 0:
		return usage.SourceErrorf("%s: the pipeline has no component that is quantized: %s", m.Source.Path, strings.Join(quantizable, ", "))
	}
	return nil
}

// isQuantized reports whether a folder holds a quantized layer. One that cannot
// be read counts, so that whoever takes it says why.
func isQuantized(folder source.Source) bool {
	if !HoldsWeights(folder) {
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

// ListOthers finds what is copied to a folder, of each model and, of a pipeline,
// outside of those, and notes what is not.
func (m *Bundle) ListOthers(dest string, copyWeights bool) (err error) {
	for _, one := range m.Models {
		if dest == "" || IsFolder(dest) {
			if one.others, err = one.Checkpoint.OtherFiles(copyWeights); err != nil {
				return err
			}
			one.Plan.Notes = append(one.Plan.Notes, dropDescriptions(one.Checkpoint, one.others)...)
		}
		notes := slices.Concat(sourceNotes(one.Checkpoint), LeftOut(one.others))
		if one.others == nil {
			notes = append(notes, notRead(one.Checkpoint.OtherWeights())...)
		}
		one.Plan.Notes = append(notes, one.Plan.Notes...) // what matters most stands last
	}
	if !m.IsPipeline() {
		return nil
	}
	m.Others, err = checkpoint.Listing{
		Tree: m.Source.Tree, Dir: m.Source.Path, Described: m.components, CopyWeights: copyWeights, Witness: &m.witness,
		Skip: func(name string) bool {
			return slices.ContainsFunc(m.Models, func(one *Model) bool { return one.Folder == name })
		},
	}.List()
	return err
}

// Again is the bundle once more, before anything was planned, for another output. It reads
// the files that this one has open.
func (m *Bundle) Again() *Bundle {
	other := newBundle(m.Source)
	other.components, other.borrowed = m.components, true
	for _, one := range m.Models {
		other.Models = append(other.Models, &Model{Folder: one.Folder, Checkpoint: one.Checkpoint})
	}
	return other
}

// Close closes the models' files.
func (m *Bundle) Close() error {
	if m.borrowed {
		return nil
	}
	var err error
	for _, one := range m.Models {
		err = errors.Join(err, one.Checkpoint.Close())
	}
	return err
}

// IsPipeline reports whether the models are components of a pipeline.
func (m *Bundle) IsPipeline() bool { return m.Models[0].Folder != "" }

// Unchanged fails if anything that was read is not what it was when it was.
func (m *Bundle) Unchanged() error {
	for _, one := range m.Models {
		if err := one.Checkpoint.Unchanged(); err != nil {
			return err
		}
	}
	return m.witness.Unchanged()
}

// Stamps tell a source from another and from what it was before it changed, whatever the
// path to it is.
func (m *Bundle) Stamps() (all []string) {
	for _, one := range m.Models {
		all = append(all, fmt.Sprintf("model %q", one.Folder))
		all = append(all, one.Checkpoint.Stamps()...)
	}
	return append(all, m.witness.Stamps(m.Source.Path)...)
}

// BytesIn is what of the source is read.
func (m *Bundle) BytesIn() (n int64) {
	for _, one := range m.Models {
		n += one.Plan.BytesIn
	}
	return n
}

// BytesOut is what weights take in the output.
func (m *Bundle) BytesOut() (n int64) {
	for _, one := range m.Models {
		n += one.Plan.BytesOut
	}
	return n
}

// ClassesOf are the classes that a model's config names.
func ClassesOf(config pyjson.Object) []string {
	if name, ok := config.Get("_class_name"); ok {
		if text, ok := name.(string); ok {
			return []string{text}
		}
	}
	list, _ := config.Get("architectures")
	items, _ := list.([]any)
	var names []string
	for _, item := range items {
		if text, ok := item.(string); ok {
			names = append(names, text)
		}
	}
	return names
}

// ReadModel finds a checkpoint's layers, with the help of its source if given.
func ReadModel(c *checkpoint.Checkpoint, s *source.Source) (*layout.Model, error) {
	var from *checkpoint.Checkpoint
	if s != nil {
		var err error
		if from, err = checkpoint.Open(*s); err != nil {
			return nil, err
		}
		defer from.Close()
	}
	m, err := layout.Read(c, from)
	if err != nil {
		return nil, usage.AsSource(err)
	}
	if m.Err != nil {
		return nil, usage.Source(m.Failed())
	}
	return m, nil
}
