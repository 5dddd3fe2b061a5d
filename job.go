package tensorpress

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// job is a source on its way to an output.
type job struct {
	*models
	side   sideFile     // of an output that is one file
	beside int64        // bytes of files that are copied
	stage  *stage.Stage // of the output, once it is created
	// parents says that folders that the output is to lie in are made.
	parents bool
}

// newJob is for a source that was opened, or was not.
func newJob(m *models, err error) (*job, error) {
	if err != nil {
		return nil, err
	}
	return &job{models: m}, nil
}

// plan decides about every model; chosen are the dtypes that were measured, by
// the models' folders, nil before.
func (j *job) plan(dest string, o Options, chosen map[string]map[string]plan.Choice) (err error) {
	if j.isPipeline() && dest != "" && !isFolder(dest) {
		return usage.Errorf("%s must be a folder, since the source is a pipeline", dest)
	}
	for _, one := range j.list {
		if one.like != "" {
			o.Like = one.like
		}
		switch one.plan, err = makePlan(one.c, within(dest, one.folder), o, chosen[one.folder]); {
		case err != nil && j.isPipeline():
			return fmt.Errorf("%s: %w", one.folder, err)
		case err != nil:
			return err
		}
	}
	return j.listOthers(dest, o.CopyWeights)
}

// writing is the work that fills an output.
type writing struct {
	dest  string
	force bool
	Resources
	bytes int64 // that progress counts to
	tasks func(yield func(stream.Task) bool)
	// report says what was done, from the files as they are staged.
	report func(out *stage.Stage, done func(int64)) (*report.Report, error)
}

// write does the work out of sight and puts all that was written in its place
// at the end.
func (j *job) write(ctx context.Context, w writing) (*report.Report, error) {
	out, err := j.create(ctx, w.dest, w.force)
	if err != nil {
		return nil, err
	}
	defer out.Abort() // of a panic, else it is done
	r, err := j.commit(ctx, w, out)
	return r, errors.Join(out.Named(err), out.Abort())
}

func (j *job) commit(ctx context.Context, w writing, out *stage.Stage) (*report.Report, error) {
	done := w.progress(w.bytes)
	tasks := func(yield func(stream.Task) bool) {
		if j.headers(yield) {
			w.tasks(yield)
		}
	}
	if err := stream.Run(ctx, w.threads(), tasks, done); err != nil {
		return nil, err
	}
	if err := j.finish(); err != nil {
		return nil, err
	}
	r, err := w.report(out, done)
	if err != nil {
		return nil, err
	}
	if err := j.unchanged(); err != nil {
		return nil, err
	}
	if err := out.Commit(ctx); err != nil {
		return nil, err
	}
	r.Notes = slices.Concat(j.side.notes(), out.Notes(), r.Notes) // what matters most stands last
	return r, nil
}

// copied is the work on plans whose steps read a source's own tensors, without
// more to say than what was planned: that is put together meanwhile.
func (j *job) copied(dest string, force bool, r Resources, start time.Time) writing {
	done := make(chan *report.Report, 1)
	go func() { done <- j.report(dest, time.Since(start)) }()
	return writing{
		dest: dest, force: force, Resources: r, bytes: j.bytesIn(),
		tasks: func(yield func(stream.Task) bool) { j.quantize(r, yield) },
		report: func(*stage.Stage, func(int64)) (*report.Report, error) {
			r := <-done
			r.Seconds = time.Since(start).Seconds()
			return r, nil
		},
	}
}

// planned is the report of what would be written, once dest, if there is one, is
// checked.
func (j *job) planned(dest string, force bool) (*report.Report, error) {
	if dest == "" {
		return j.report(dest, 0), nil
	}
	out, err := j.output(dest, force)
	if err == nil {
		err = stage.Check(out)
	}
	if err != nil {
		return nil, err
	}
	r := j.report(dest, 0)
	r.Notes = slices.Concat(r.Notes, j.side.notes())
	return r, nil
}

// create opens the output's files and writes what stands beside them.
func (j *job) create(ctx context.Context, dest string, force bool) (*stage.Stage, error) {
	o, err := j.output(dest, force)
	if err != nil {
		return nil, err
	}
	s, err := stage.Open(o)
	if err != nil {
		return nil, err
	}
	j.stage = s
	if err := j.fill(ctx, s, dest); err != nil {
		return nil, errors.Join(s.Named(err), s.Abort())
	}
	return s, nil
}

func (j *job) fill(ctx context.Context, s *stage.Stage, dest string) (err error) {
	if free, needed := s.Free(), j.bytesOut()+j.beside; free >= 0 && free < needed {
		return &spaceError{dest, needed, free, s.Notes()}
	}
	if err := j.companions(ctx, func(folder string) place { return s.Folder(folder) }, dest); err != nil {
		return err
	}
	for _, one := range j.list {
		if one.writers, err = createFiles(s.Folder(one.folder), one.plan.Files); err != nil {
			return err
		}
	}
	return nil
}

// companions writes all files but the weights of the models.
func (j *job) companions(ctx context.Context, in func(folder string) place, dest string) error {
	if j.others != nil {
		for _, name := range j.others.Files {
			if err := in("").CopyFile(ctx, name, filepath.Join(j.source, filepath.FromSlash(name))); err != nil {
				return err
			}
		}
	}
	for _, one := range j.list {
		if err := j.writeCompanions(ctx, in(one.folder), one, dest); err != nil {
			return err
		}
	}
	return nil
}

// headers yields the writing of the outputs' headers: that of many tensors is long.
func (j *job) headers(yield func(stream.Task) bool) bool {
	for _, one := range j.list {
		for _, w := range one.writers {
			if !yield(stream.Task{Do: func(*stream.Worker) error { return w.WriteHeader() }}) {
				return false
			}
		}
	}
	return true
}

// quantize yields the work on one model after the other.
func (j *job) quantize(r Resources, yield func(stream.Task) bool) {
	k := newKeeper(r)
	for _, one := range j.list {
		q := &quantization{source: one.c, plan: one.plan, writers: one.writers, keeper: k, stage: j.stage, Resources: r}
		if !q.tasks(yield) {
			return
		}
	}
}

func (j *job) finish() error {
	for _, one := range j.list {
		for _, w := range one.writers {
			if err := w.Finish(); err != nil {
				return err
			}
		}
	}
	return nil
}

// report joins those of the models, whose names then begin with their folder.
func (j *job) report(dest string, took time.Duration) *report.Report {
	all := newReport(j.source, dest, j.list[0].plan, took)
	if !j.isPipeline() {
		return all
	}
	all.Layers, all.Files, all.Notes, all.Needs, all.Preset = []report.Layer{}, nil, leftOut(j.others), nil, ""
	all.BytesIn, all.BytesOut = j.bytesIn(), j.bytesOut()
	var presets, warnings []string // what matters most stands last
	for _, one := range j.list {
		r := newReport("", "", one.plan, 0)
		r.Notes = slices.Clone(one.plan.Notes)
		for _, l := range r.Layers {
			l.Name = one.named(l.Name)
			all.Layers = append(all.Layers, l)
		}
		for _, n := range r.Needs {
			all.Needs = addNeed(all.Needs, n)
		}
		for _, name := range r.Files {
			all.Files = append(all.Files, one.named(name))
		}
		if name, _, _ := strings.Cut(r.Preset, ":"); name != "" {
			presets = append(presets, name+" for "+one.folder)
		}
		for _, note := range r.Notes {
			all.Notes = append(all.Notes, one.note(note))
		}
		for _, warning := range one.plan.Warnings {
			warnings = append(warnings, one.folder+": "+warning)
		}
	}
	all.Notes = append(all.Notes, warnings...)
	all.Preset = strings.Join(presets, ", ")
	return all
}
