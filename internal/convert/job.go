// Package convert tells the story of each command, from options to report: the
// source is opened and planned, the output is staged, weights go through the engine,
// and all is put in place at once. There is a file for each command; job.go is what
// they share.
package convert

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/verify"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// spaceError says that the disk is too small before it is full.
type spaceError struct {
	dest         string
	needed, free int64
	notes        []string // what else takes room there
}

func (e *spaceError) Error() string {
	text := fmt.Sprintf("%s needs %s, and %s are free there: make room or name another disk", e.dest, report.Size(e.needed), report.Size(e.free))
	return strings.Join(append([]string{text}, e.notes...), "; ")
}

// job is a source on its way to an output.
type job struct {
	*bundle.Bundle
	side   bundle.SideFile // of an output that is one file
	beside int64           // bytes of files that are copied
	out    *bundle.Output  // once it is begun
	// tell says what is done, or would be.
	tell func(dest string, took time.Duration) *report.Report
	// asked is what a quantization was asked for, and name where to.
	asked request
	name  string
	notes []string // of all models
	// choice is that of a budget, nil for none.
	choice *choice
	// adapters are what is merged into the source; nil where nothing can be.
	adapters *lora.Set
	// measuredPlain says that `Measured` is of the source without them.
	measuredPlain bool
	// before are the bytes that progress has counted before weights are written.
	before int64
	// listed are the files beside the weights of an output that is a folder, and shards what
	// a run that keeps them says of the weights'; empty and nil for another.
	listed bundle.Listing
	shards *report.Shards
	// also is what other outputs of the run take on the same disk, and crowded says that
	// weights of some come to lie beside this one.
	also    int64
	crowded bool
	// parents says that folders that the output is to lie in are made.
	parents bool
}

// newJob is for a source that was opened, or was not.
func newJob(m *bundle.Bundle, err error) (*job, error) {
	if err != nil {
		return nil, err
	}
	j := &job{Bundle: m}
	j.tell = j.report
	return j, nil
}

// readDecided opens a source and decides about each of its models.
func readDecided(ctx context.Context, from source.Source, dest string, copyWeights bool, decide func(*bundle.Model) error) (*job, error) {
	return newJob(bundle.ReadDecided(from, dest, copyWeights, func(one *bundle.Model) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return decide(one)
	}))
}

// plan decides about every model; chosen are the dtypes that were measured, by
// the models' folders, nil before.
func (j *job) plan(ctx context.Context, chosen map[string]map[string]plan.Choice) (err error) {
	dest, o := j.name, j.asked
	if j.IsPipeline() && dest != "" && !bundle.IsFolder(dest) {
		return usage.Errorf("%s must be a folder, since the source is a pipeline", dest)
	}
	moments, err := openMoments(o.Importance)
	if err != nil {
		return err
	}
	defer moments.close()
	for _, one := range j.Models {
		if err := ctx.Err(); err != nil {
			return err
		}
		if one.Like != nil {
			o.like = one.Like
		}
		o.moments = moments.of(j.Bundle, one)
		o.component = one.Folder
		switch one.Plan, err = makePlan(one.Checkpoint, bundle.Within(dest, one.Folder), o, chosen[one.Folder]); {
		case err != nil && j.IsPipeline():
			return fmt.Errorf("%s: %w", one.Folder, err)
		case err != nil:
			return err
		}
	}
	budget := o.trying || o.chooses() || o.Fingerprint != "" // a lock is of a budget
	if j.notes, err = moments.check(j.Models, budget); err != nil {
		return err
	}
	if err := j.unused(); err != nil {
		return err
	}
	merged, err := j.merged()
	if err != nil {
		return err
	}
	j.notes = append(j.notes, merged...)
	return j.ListOthers(dest, o.CopyWeights)
}

// unused refuses what matches nothing in any component of a pipeline.
func (j *job) unused() error {
	none := j.Models[0].Plan.Unused
	for _, text := range slices.Sorted(maps.Keys(none)) {
		if !slices.ContainsFunc(j.Models, func(one *bundle.Model) bool { return one.Plan.Unused[text] == nil }) {
			return none[text]
		}
	}
	return nil
}

// writing is the work that fills an output.
type writing struct {
	dest  files.Sink
	force bool
	engine.Resources
	bytes int64 // that progress counts to
	again bool  // what is written is read again
	hash  bool  // the report has the sha256 of all files
	tasks func(yield func(stream.Task) bool)
	// report says what was done, from the files as they are staged.
	report func(done func(int64)) (*report.Report, error)
}

// write does the work out of sight and puts all that was written in its place
// at the end.
func (j *job) write(ctx context.Context, w writing) (*report.Report, error) {
	if err := j.create(ctx, w); err != nil {
		return nil, err
	}
	defer j.out.Abort() // of a panic, else it is done
	var hashes *hashing
	if w.hash {
		hashes = startHashing(ctx, j.sourceFiles(), j.bytesHashed(), w.Resources)
		defer hashes.stop()
	}
	r, err := j.commit(ctx, w, hashes)
	return r, errors.Join(j.out.Named(err), j.out.Abort())
}

func (j *job) commit(ctx context.Context, w writing, hashes *hashing) (*report.Report, error) {
	done := engine.Counter(w.Resources, w.bytes)
	tasks := func(yield func(stream.Task) bool) {
		if j.headers(yield) {
			w.tasks(yield)
		}
	}
	if err := stream.Run(ctx, engine.Workers(w.Resources), tasks, done); err != nil {
		return nil, err
	}
	r, err := j.complete(ctx, w, done, hashes)
	if err == nil {
		err = j.Unchanged()
	}
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	watch.Of(ctx).Enter(watch.Placing)
	if err := j.out.Commit(ctx); err != nil {
		return nil, err
	}
	if _, ok := w.dest.(files.Dir); !ok { // the way to where it goes is a part of the work
		r.Seconds += time.Since(begun).Seconds()
	}
	j.placed(w.dest, r)
	return r, nil
}

// complete makes sure that all is written that was to be, and reports it.
func (j *job) complete(ctx context.Context, w writing, done func(int64), hashes *hashing) (*report.Report, error) {
	if err := j.finish(); err != nil {
		return nil, err
	}
	r, err := w.report(done)
	if err != nil {
		return nil, err
	}
	var notes []string
	if r.Provenance, notes, err = hashes.tell(ctx, j.out, r.Dest); err != nil {
		return nil, err
	}
	r.Notes = append(notes, r.Notes...)
	return r, nil
}

// placed adds to a report what is known once the output is in its place.
func (j *job) placed(dest files.Sink, r *report.Report) {
	r.Notes = slices.Concat(j.side.Notes(), j.out.Notes(), r.Notes) // what matters most stands last
	r.Next = j.next(dest)
}

// copied is the work on plans whose steps read a source's own tensors, without
// more to say than what was planned: that is put together meanwhile.
func (j *job) copied(dest files.Sink, force bool, r engine.Resources, start time.Time) writing {
	done := make(chan *report.Report, 1)
	go func() { done <- j.report(nameOf(dest), time.Since(start)) }()
	return writing{
		dest: dest, force: force, Resources: r, bytes: j.BytesIn(),
		tasks: func(yield func(stream.Task) bool) { j.quantize(r, yield) },
		report: func(func(int64)) (*report.Report, error) {
			r := <-done
			r.Seconds = time.Since(start).Seconds()
			return r, nil
		},
	}
}

// nameOf is what a destination is called, "" where there is none.
func nameOf(dest files.Sink) string {
	if dest == nil {
		return ""
	}
	return dest.String()
}

// planned is the report of what would be written by a job that was read, or was not,
// once dest, if there is one, is checked.
func planned(ctx context.Context, j *job, err error, dest files.Sink, force bool) (*report.Report, error) {
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name := nameOf(dest)
	if name == "" {
		return j.tell("", 0), nil
	}
	out, err := j.output(dest, force)
	if err == nil {
		err = bundle.Check(ctx, dest, out)
	}
	if err != nil {
		return nil, err
	}
	r := j.tell(name, 0)
	r.Notes = slices.Concat(r.Notes, j.side.Notes())
	return r, nil
}

// create begins the output, opens its files and writes what stands beside them.
func (j *job) create(ctx context.Context, w writing) (err error) {
	watch.Of(ctx).Enter(watch.Writing)
	if j.out, err = j.begin(ctx, w); err != nil {
		return err
	}
	if w.again && !j.out.Readable() {
		err = usage.Errorf("%s cannot be read before it is whole, and its errors are not measured then: measure them afterwards, or write to a path", w.dest)
	} else {
		err = j.fill(ctx, w.dest.String())
	}
	if err != nil {
		return errors.Join(j.out.Named(err), j.out.Abort())
	}
	return nil
}

func (j *job) begin(ctx context.Context, w writing) (*bundle.Output, error) {
	if w.dest == nil {
		return nil, usage.Errorf("no destination is named")
	}
	o, err := j.output(w.dest, w.force)
	if err != nil {
		return nil, err
	}
	if _, ok := w.dest.(files.Dir); !ok {
		return bundle.Begin(ctx, w.dest, o)
	}
	s, err := stage.Open(o)
	if err != nil {
		return nil, err
	}
	return bundle.Staged(s), nil
}

func (j *job) fill(ctx context.Context, dest string) (err error) {
	if free, needed := j.out.Free(), j.BytesOut()+j.beside+j.also; free >= 0 && free < needed {
		return &spaceError{dest, needed, free, j.out.Notes()}
	}
	watch.Of(ctx).Expect(j.beside)
	if err := j.companions(ctx, j.out.In, dest); err != nil {
		return err
	}
	for _, one := range j.Models {
		if one.Writers, err = bundle.CreateFiles(j.out.In(one.Folder), one.Plan.Files); err != nil {
			return err
		}
		watched(ctx, one.Writers)
	}
	return nil
}

// companions writes all files but the weights of the models.
func (j *job) companions(ctx context.Context, in func(folder string) bundle.Sink, dest string) error {
	if j.Others != nil {
		for _, name := range j.Others.Files {
			if err := in("").CopyFile(ctx, name, j.Source.In(name)); err != nil {
				return err
			}
		}
	}
	for _, one := range j.Models {
		if err := j.writeCompanions(ctx, in(one.Folder), one, dest); err != nil {
			return err
		}
	}
	return nil
}

// headers yields the writing of the outputs' headers: that of many tensors is long.
func (j *job) headers(yield func(stream.Task) bool) bool {
	for _, one := range j.Models {
		for _, w := range one.Writers {
			if !yield(stream.Task{Do: func(*stream.Worker) error { return w.WriteHeader() }}) {
				return false
			}
		}
	}
	return true
}

// quantize yields the work on one model after the other.
func (j *job) quantize(r engine.Resources, yield func(stream.Task) bool) {
	k := engine.NewResidency(r)
	for _, one := range j.Models {
		q := &engine.Quantization{Source: one.Checkpoint, Plan: one.Plan, Writers: one.Writers, Residency: k, Stage: j.out, Resources: r}
		if !q.Tasks(yield) {
			return
		}
	}
}

func (j *job) finish() error {
	for _, one := range j.Models {
		for _, w := range one.Writers {
			if err := w.Finish(); err != nil {
				return err
			}
		}
	}
	return nil
}

// report joins those of the models, whose names then begin with their folder.
func (j *job) report(dest string, took time.Duration) *report.Report {
	all := j.reportPlans(dest, took)
	j.choice.tell(all)
	j.tellShards(all)
	return all
}

func (j *job) reportPlans(dest string, took time.Duration) *report.Report {
	all := newReport(j.Source.Path, dest, j.Models[0].Plan, took)
	if !j.IsPipeline() {
		all.Notes = slices.Concat(j.notes, all.Notes)
		return all
	}
	all.Layers, all.Files, all.Notes, all.Needs, all.Preset = []report.Layer{}, nil, slices.Concat(bundle.LeftOut(j.Others), j.notes), nil, ""
	all.BytesIn, all.BytesOut = j.BytesIn(), j.BytesOut()
	var presets, warnings []string // what matters most stands last
	for _, one := range j.Models {
		r := newReport("", "", one.Plan, took)
		all.BytesOut, all.AtMost = all.BytesOut+r.BytesOut-one.Plan.BytesOut, all.AtMost || r.AtMost
		r.Notes = slices.Clone(one.Plan.Notes)
		for _, l := range r.Layers {
			l.Name = one.Named(l.Name)
			all.Layers = append(all.Layers, l)
		}
		for _, n := range r.Needs {
			all.Needs = verify.AddNeed(all.Needs, n)
		}
		for _, name := range r.Files {
			all.Files = append(all.Files, one.Named(name))
		}
		if name, _, _ := strings.Cut(r.Preset, ":"); name != "" {
			presets = append(presets, name+" for "+one.Folder)
		}
		for _, note := range r.Notes {
			all.Notes = append(all.Notes, one.Note(note))
		}
		for _, warning := range one.Plan.Warnings {
			warnings = append(warnings, one.Folder+": "+warning)
		}
	}
	all.Notes = append(all.Notes, warnings...)
	all.Preset = strings.Join(presets, ", ")
	return all
}

// output is what is asked for of the stage: where the files go, and what may be
// replaced there.
func (j *job) output(to files.Sink, force bool) (o stage.Output, err error) {
	dest := to.String()
	o = stage.Output{Dest: dest, Folder: bundle.IsFolder(dest), Force: force, Parents: j.parents, Keeps: j.asked.keeps()}
	switch {
	case !j.Source.OnDisk():
	case j.IsPipeline():
		o.Sources = []string{j.Source.Path}
	default:
		o.Sources = bundle.SourcePaths(j.Models[0].Checkpoint, o.Folder)
	}
	o.Sources = append(o.Sources, j.adapters.Paths()...)
	if _, ok := to.(files.Dir); !ok {
		if !o.Folder {
			j.side, err = bundle.NoSideFile(j.Models[0].Plan, dest)
		}
		if !o.Folder || !bundle.Checks(to) {
			return o, err
		}
	}
	if !o.Folder {
		if j.side, err = bundle.SideFileOf(j.Models[0].Plan, dest, force); err == nil && j.crowded {
			j.side, err = j.side.Crowded(dest)
		}
		o.Beside = j.side.Beside()
		return o, err
	}
	if j.listed.All == nil { // of all of the output, before a part of it is left of the plans
		all := &bundle.Listing{}
		if err := j.companions(context.Background(), all.In, dest); err != nil {
			return o, err
		}
		j.beside, j.listed = all.Bytes, *all
	}
	o.Contents = stage.Contents{Files: j.listed.Names(), Stems: map[string]string{}}
	for _, one := range j.Models {
		o.Stems[one.Folder] = one.Checkpoint.Stem()
		for _, f := range one.Plan.Files {
			o.Files = append(o.Files, path.Join(one.Folder, f.Name))
		}
	}
	return o, nil
}

// writeCompanions writes what stands beside a model's weights: configs, the index,
// and in a folder all other files of the source.
func (j *job) writeCompanions(ctx context.Context, s bundle.Sink, one *bundle.Model, dest string) error {
	c, p := one.Checkpoint, one.Plan
	if !bundle.IsFolder(dest) {
		return j.side.Write(s)
	}
	if err := bundle.CopyOthers(ctx, s, one); err != nil {
		return err
	}
	if len(p.Files) > 1 {
		if err := s.WriteFile(c.IndexName(), []byte(p.Index())); err != nil {
			return err
		}
	}
	if p.ConfigFile && c.Config != nil { // else that is where it goes anyway
		if err := s.WriteFile(layout.ConfigFile, []byte(pyjson.DumpSorted(p.Config.Encode()))); err != nil {
			return err
		}
	}
	return bundle.WriteModelConfig(s, c, p)
}
