package convert

import (
	"context"
	"errors"
	"slices"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// assembly is tensors of some checkpoints on their way into other files, as they are.
type assembly struct {
	checkpoints []*checkpoint.Checkpoint
	files       []plan.File
	copies      []engine.Copy
	told        *report.Assembly
}

// named is a tensor and what it will be called.
type named struct {
	source *checkpoint.Checkpoint
	from   checkpoint.Tensor
	name   string
}

// add plans a file.
func (a *assembly) add(name string, tensors []named, metadata map[string]string) error {
	headers := make([]safetensors.Tensor, len(tensors))
	for i, t := range tensors {
		headers[i] = safetensors.Tensor{Name: t.name, Dtype: t.from.Dtype, Shape: t.from.Shape}
	}
	header, err := safetensors.NewHeader(headers, metadata)
	if err != nil {
		return err
	}
	for i, t := range tensors {
		a.copies = append(a.copies, engine.Copy{Source: t.source, From: t.from, File: len(a.files), To: headers[i]})
		a.told.Bytes += t.from.Size
	}
	a.files = append(a.files, plan.File{Name: name, Header: header})
	return nil
}

func (a *assembly) close() {
	for _, c := range a.checkpoints {
		c.Close()
	}
}

func (a *assembly) unchanged() error {
	for _, c := range a.checkpoints {
		if err := c.Unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// sourceFiles are all that is read.
func (a *assembly) sourceFiles() (all []source.Source) {
	for _, c := range a.checkpoints {
		all = append(all, weightFiles(c)...)
	}
	return all
}

// output is what is asked for of the stage.
func (a *assembly) output(dest string, force bool) stage.Output {
	o := stage.Output{Dest: dest, Folder: bundle.IsFolder(dest), Force: force}
	for _, c := range a.checkpoints {
		if c.Tree.OnDisk() {
			o.Sources = append(o.Sources, bundle.SourcePaths(c, false)...)
		}
	}
	for _, f := range a.files {
		o.Contents.Files = append(o.Contents.Files, f.Name)
	}
	return o
}

// plan says what would be written, once dest, if there is one, is checked.
func (a *assembly) plan(dest files.Sink, force bool) (*report.Assembly, error) {
	if _, ok := dest.(files.Dir); ok && dest.String() != "" {
		if err := stage.Check(a.output(dest.String(), force)); err != nil {
			return nil, err
		}
	}
	return a.told, nil
}

// write copies all tensors out of sight and puts the files in their place.
func (a *assembly) write(ctx context.Context, dest files.Sink, force, hash bool, r engine.Resources) (*report.Assembly, error) {
	out, err := a.begin(ctx, dest, force)
	if err != nil {
		return nil, err
	}
	defer out.Abort()
	var hashes *hashing
	if hash {
		hashes = startHashing(ctx, a.sourceFiles(), a.bytesHashed(out), r)
		defer hashes.stop()
	}
	err = a.fill(ctx, out, dest.String(), r)
	if err == nil {
		var notes []string
		a.told.Provenance, notes, err = hashes.tell(ctx, out, dest.String())
		a.told.Notes = append(notes, a.told.Notes...)
	}
	if err == nil {
		err = a.unchanged()
	}
	if err == nil {
		watch.Of(ctx).Enter(watch.Placing)
		err = out.Commit(ctx)
	}
	a.told.Notes = slices.Concat(out.Notes(), a.told.Notes)
	return a.told, errors.Join(out.Named(err), out.Abort())
}

func (a *assembly) begin(ctx context.Context, dest files.Sink, force bool) (*bundle.Output, error) {
	if dest == nil {
		return nil, usage.Errorf("no destination is named")
	}
	if _, ok := dest.(files.Dir); !ok {
		return bundle.Begin(ctx, dest, a.output(dest.String(), force))
	}
	s, err := stage.Open(a.output(dest.String(), force))
	if err != nil {
		return nil, err
	}
	return bundle.Staged(s), nil
}

func (a *assembly) fill(ctx context.Context, out *bundle.Output, dest string, r engine.Resources) error {
	if free := out.Free(); free >= 0 && free < a.told.Bytes {
		return &spaceError{dest, a.told.Bytes, free, out.Notes()}
	}
	writers, err := bundle.CreateFiles(out.In(""), a.files)
	if err != nil {
		return err
	}
	watch.Of(ctx).Enter(watch.Writing)
	watched(ctx, writers)
	for _, w := range writers {
		if err := w.WriteHeader(); err != nil {
			return err
		}
	}
	tasks := func(yield func(stream.Task) bool) { engine.CopyTasks(a.copies, writers, yield) }
	if err := stream.Run(ctx, engine.Workers(r), tasks, engine.Counter(r, a.told.Bytes)); err != nil {
		return err
	}
	for _, w := range writers {
		if err := w.Finish(); err != nil {
			return err
		}
	}
	return nil
}
