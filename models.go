package tensorpress

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
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
	side       sideFile           // of an output that is one file
	beside     int64              // bytes of files that are copied
	stage      *stage.Stage       // of the output, once it is created
	// parents says that folders that the output is to lie in are made.
	parents bool
}

// model is one of them under way.
type model struct {
	folder  string // in the pipeline, "" for a source that is one model
	c       *checkpoint.Checkpoint
	like    string // a quantized model whose settings it takes, if it is not --like itself
	plan    *plan.Plan
	others  *checkpoint.Others // beside its weights, for a destination that is a folder
	writers writers
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

func readModels(source string, o Options) (*models, error) {
	m := &models{source: source, parents: o.ctq != nil}
	folders, found, err := pipelineOf(source)
	if err != nil {
		return nil, err
	}
	if found {
		m.components = folders
		return m, m.readPipeline(o.Like)
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
		return nil, sourceErrorf("%s %w", source, errNothingDecided)
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
		return sourceErrorf("%s: no component of it is quantized in %s", m.source, like)
	case len(m.list) == 0:
		return sourceErrorf("%s: the pipeline has no component that is quantized: %s", m.source, strings.Join(quantizable, ", "))
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

// plan decides about every model; chosen are the dtypes that were measured, by
// the models' folders, nil before.
func (m *models) plan(dest string, o Options, chosen map[string]map[string]plan.Choice) (err error) {
	if m.isPipeline() && dest != "" && !isFolder(dest) {
		return usage.Errorf("%s must be a folder, since the source is a pipeline", dest)
	}
	for _, one := range m.list {
		if one.like != "" {
			o.Like = one.like
		}
		switch one.plan, err = makePlan(one.c, within(dest, one.folder), o, chosen[one.folder]); {
		case err != nil && m.isPipeline():
			return fmt.Errorf("%s: %w", one.folder, err)
		case err != nil:
			return err
		}
	}
	return m.listOthers(dest, o.CopyWeights)
}

func (m *models) isPipeline() bool { return m.list[0].folder != "" }

// writing is the work that fills an output.
type writing struct {
	dest  string
	force bool
	Resources
	bytes int64 // that progress counts to
	tasks func(yield func(stream.Task) bool)
	// report says what was done, from the files as they are staged.
	report func(out *stage.Stage, done func(int64)) (*Report, error)
}

// write does the work out of sight and puts all that was written in its place
// at the end.
func (m *models) write(ctx context.Context, w writing) (*Report, error) {
	out, err := m.create(ctx, w.dest, w.force)
	if err != nil {
		return nil, err
	}
	defer out.Abort()
	r, err := m.commit(ctx, w, out)
	return r, out.Named(err)
}

func (m *models) commit(ctx context.Context, w writing, out *stage.Stage) (*Report, error) {
	done := w.progress(w.bytes)
	tasks := func(yield func(stream.Task) bool) {
		if m.headers(yield) {
			w.tasks(yield)
		}
	}
	if err := stream.Run(ctx, w.threads(), tasks, done); err != nil {
		return nil, err
	}
	if err := m.finish(); err != nil {
		return nil, err
	}
	r, err := w.report(out, done)
	if err != nil {
		return nil, err
	}
	if err := m.unchanged(); err != nil {
		return nil, err
	}
	if err := out.Commit(ctx); err != nil {
		return nil, err
	}
	r.Notes = slices.Concat(m.side.notes(), out.Notes(), r.Notes) // what matters most stands last
	return r, nil
}

// unchanged fails if anything that was read is not what it was when it was.
func (m *models) unchanged() error {
	for _, one := range m.list {
		if err := one.c.Unchanged(); err != nil {
			return err
		}
	}
	return m.witness.Unchanged()
}

// copied is the work on plans whose steps read a source's own tensors, without
// more to say than what was planned: that is put together meanwhile.
func (m *models) copied(dest string, force bool, r Resources, start time.Time) writing {
	done := make(chan *Report, 1)
	go func() { done <- m.report(dest, time.Since(start)) }()
	return writing{
		dest: dest, force: force, Resources: r, bytes: m.bytesIn(),
		tasks: func(yield func(stream.Task) bool) { m.quantize(r, yield) },
		report: func(*stage.Stage, func(int64)) (*Report, error) {
			report := <-done
			report.Seconds = time.Since(start).Seconds()
			return report, nil
		},
	}
}

// planned is the report of what would be written, once dest, if there is one, is
// checked.
func (m *models) planned(dest string, force bool) (*Report, error) {
	if dest == "" {
		return m.report(dest, 0), nil
	}
	out, err := m.output(dest, force)
	if err == nil {
		err = stage.Check(out)
	}
	if err != nil {
		return nil, err
	}
	r := m.report(dest, 0)
	r.Notes = slices.Concat(r.Notes, m.side.notes())
	return r, nil
}

// create opens the output's files and writes what stands beside them.
func (m *models) create(ctx context.Context, dest string, force bool) (*stage.Stage, error) {
	o, err := m.output(dest, force)
	if err != nil {
		return nil, err
	}
	s, err := stage.Open(o)
	if err != nil {
		return nil, err
	}
	m.stage = s
	if err := m.fill(ctx, s, dest); err != nil {
		return nil, errors.Join(s.Named(err), s.Abort())
	}
	return s, nil
}

func (m *models) fill(ctx context.Context, s *stage.Stage, dest string) (err error) {
	if free, needed := s.Free(), m.bytesOut()+m.beside; free >= 0 && free < needed {
		return &spaceError{dest, needed, free, s.Notes()}
	}
	if err := m.companions(ctx, func(folder string) place { return s.Folder(folder) }, dest); err != nil {
		return err
	}
	for _, one := range m.list {
		if one.writers, err = createFiles(s.Folder(one.folder), one.plan.Files); err != nil {
			return err
		}
	}
	return nil
}

// companions writes all files but the weights of the models.
func (m *models) companions(ctx context.Context, in func(folder string) place, dest string) error {
	if m.others != nil {
		for _, name := range m.others.Files {
			if err := in("").CopyFile(ctx, name, filepath.Join(m.source, filepath.FromSlash(name))); err != nil {
				return copyError(err)
			}
		}
	}
	for _, one := range m.list {
		if err := m.writeCompanions(ctx, in(one.folder), one, dest); err != nil {
			return copyError(err)
		}
	}
	return nil
}

// headers yields the writing of the outputs' headers: that of many tensors is long.
func (m *models) headers(yield func(stream.Task) bool) bool {
	for _, one := range m.list {
		for _, w := range one.writers {
			if !yield(stream.Task{Do: func(*stream.Worker) error { return w.WriteHeader() }}) {
				return false
			}
		}
	}
	return true
}

// quantize yields the work on one model after the other.
func (m *models) quantize(r Resources, yield func(stream.Task) bool) {
	k := newKeeper(r)
	for _, one := range m.list {
		q := &quantization{source: one.c, plan: one.plan, writers: one.writers, keeper: k, stage: m.stage, Resources: r}
		if !q.tasks(yield) {
			return
		}
	}
}

func (m *models) finish() error {
	for _, one := range m.list {
		if err := one.writers.finish(); err != nil {
			return err
		}
	}
	return nil
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

// report joins those of the models, whose names then begin with their folder.
func (m *models) report(dest string, took time.Duration) *Report {
	all := newReport(m.source, dest, m.list[0].plan, took)
	if !m.isPipeline() {
		return all
	}
	all.Layers, all.Files, all.Notes, all.Needs, all.Preset = []ReportLayer{}, nil, leftOut(m.others), nil, ""
	all.BytesIn, all.BytesOut = m.bytesIn(), m.bytesOut()
	var warnings []string
	for _, one := range m.list {
		r := newReport("", "", one.plan, 0)
		r.Notes = slices.Clone(one.plan.Notes)
		for _, l := range r.Layers {
			l.Name = one.named(l.Name)
			all.Layers = append(all.Layers, l)
		}
		for _, n := range r.Needs {
			all.Needs = n.addTo(all.Needs)
		}
		for _, name := range r.Files {
			all.Files = append(all.Files, one.named(name))
		}
		if r.Preset != "" { // what matters most stands last
			r.Notes = slices.Concat([]string{"preset " + r.Preset}, r.Notes)
		}
		for _, note := range r.Notes {
			all.Notes = append(all.Notes, one.note(note))
		}
		for _, warning := range one.plan.Warnings {
			warnings = append(warnings, one.folder+": "+warning)
		}
	}
	all.Notes = append(all.Notes, warnings...)
	return all
}
