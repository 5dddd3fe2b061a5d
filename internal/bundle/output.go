package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/shards"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// Output is an output being written: in a stage, or in another sink.
type Output struct {
	files.Output
	stage   *stage.Stage // nil for another sink
	name    string
	files   []string // that were created
	scratch stage.Scratches
	ended   bool
}

// Staged is an output in a stage.
func Staged(s *stage.Stage) *Output { return &Output{Output: s, stage: s} }

// KeptIn is an output of which what is finished is kept.
func KeptIn(w shards.Work, name string, files []string) *Output {
	o := &Output{Output: w, name: name, files: files}
	if f, ok := w.(*shards.Folder); ok {
		o.stage = f.Stage
	}
	return o
}

// Through is an output whose files go where another says, whatever of it is kept where.
func Through(o files.Output, name string) *Output { return &Output{Output: o, name: name} }

// checker is a sink that looks at what will be written before it begins: it knows what an
// older output consists of, as a path does.
type checker interface {
	CheckOutput(ctx context.Context, o stage.Output) error
	BeginOutput(ctx context.Context, o stage.Output) (files.Output, error)
}

// Checks reports whether a sink asks what an output consists of.
func Checks(s files.Sink) bool {
	_, ok := s.(checker)
	return ok
}

// Check refuses a destination that would overwrite something, as far as that is known
// before anything is written.
func Check(ctx context.Context, s files.Sink, o stage.Output) error {
	switch to := s.(type) {
	case files.Dir:
		return stage.Check(o)
	case checker:
		return begun(s, to.CheckOutput(ctx, o))
	}
	return nil
}

// begun is an error of a sink's beginning, with its name.
func begun(s files.Sink, err error) error {
	if err == nil || errors.Is(err, usage.Err) {
		return err
	}
	err = fmt.Errorf("%s: %w", s, err)
	if errors.Is(err, fs.ErrExist) {
		err = usage.Wrap(err)
	}
	return err
}

// Begin is an output of another sink.
func Begin(ctx context.Context, s files.Sink, o stage.Output) (*Output, error) {
	var out files.Output
	var err error
	if to, ok := s.(checker); ok {
		out, err = to.BeginOutput(ctx, o)
	} else {
		out, err = s.Begin(ctx, o.Force)
	}
	if err == nil {
		return &Output{Output: out, name: s.String()}, nil
	}
	return nil, begun(s, err)
}

// Create adds a file.
func (o *Output) Create(name string, size int64) (io.WriterAt, error) {
	o.files = append(o.files, name)
	return o.Output.Create(name, size)
}

// Files are the names of all files that were created.
func (o *Output) Files() []string { return slices.Clone(o.files) }

// Abort leaves nothing behind. A sink hears it once.
func (o *Output) Abort() error {
	if o.ended {
		return nil
	}
	o.ended = true
	return errors.Join(o.scratch.Close(), o.Output.Abort())
}

// Prepare does what takes long before an output can be put in its place. Another sink than
// a path does it there.
func (o *Output) Prepare(ctx context.Context) error {
	if o.stage == nil {
		return nil
	}
	return o.stage.Prepare(ctx)
}

// Place puts a prepared output in its place, from which TakeBack takes it until Settle.
func (o *Output) Place(ctx context.Context) error {
	if o.stage == nil {
		return o.Output.Commit(ctx)
	}
	return o.stage.Place()
}

// Staged reports whether Place is undone without a trace.
func (o *Output) Staged() bool { return o.stage != nil }

// revoker is an output that can be taken back after its Commit.
type revoker interface{ Revoke() error }

// TakeBack undoes Place.
func (o *Output) TakeBack() error {
	if o.stage != nil {
		return o.stage.TakeBack()
	}
	if one, ok := o.Output.(revoker); ok {
		return one.Revoke()
	}
	return fmt.Errorf("%s is in place, and cannot be taken back", o.name)
}

// Settle ends what Place began.
func (o *Output) Settle() error {
	if o.stage == nil {
		return nil
	}
	return o.stage.Settle()
}

// Named makes an error that names a file where it is hidden one that names where it
// was to be.
func (o *Output) Named(err error) error {
	if o.stage == nil {
		return err
	}
	return o.stage.Named(err)
}

// Notes are what a user should know of where the output lies.
func (o *Output) Notes() []string {
	if o.stage != nil {
		return o.stage.Notes()
	}
	if one, ok := o.Output.(interface{ Notes() []string }); ok {
		return one.Notes()
	}
	return nil
}

// Free is how many bytes can still be written, -1 where that is not known.
func (o *Output) Free() int64 {
	if o.stage != nil {
		return o.stage.Free()
	}
	if one, ok := o.Output.(interface{ Free() int64 }); ok {
		return one.Free()
	}
	return -1
}

// Scratch opens a file for data that is needed during the run only: beside the output,
// or where the system has its temporary files.
func (o *Output) Scratch() (*stage.Scratch, error) {
	if o.stage == nil {
		return o.scratch.New()
	}
	return o.stage.Scratch()
}

// opener is an output of which files can be read again.
type opener interface {
	Open(ctx context.Context, name string) (files.File, error)
}

// Readable reports whether [Output.Written] can read.
func (o *Output) Readable() bool {
	_, ok := o.Output.(opener)
	return ok || o.stage != nil
}

// Written is what was written so far, of a folder or a file, "" for all.
func (o *Output) Written(ctx context.Context, name string) source.Source {
	if o.stage != nil {
		return source.Path(o.stage.Path(name))
	}
	return source.Of(ctx, files.At(written{o}, name))
}

// written is an output of another sink as a source.
type written struct{ *Output }

func (w written) String() string { return w.name }

func (w written) List(context.Context) ([]string, error) { return slices.Clone(w.files), nil }

func (w written) Open(ctx context.Context, name string) (files.File, error) {
	return w.Output.Output.(opener).Open(ctx, name)
}

// In is a folder of the output.
func (o *Output) In(folder string) Sink { return placed{o, folder} }

// placed is a folder of an output.
type placed struct {
	*Output
	folder string
}

func (p placed) Create(name string, size int64) (io.WriterAt, error) {
	return p.Output.Create(path.Join(p.folder, name), size)
}

func (p placed) WriteFile(name string, data []byte) error {
	if p.stage != nil {
		p.files = append(p.files, path.Join(p.folder, name))
		return p.stage.WriteFile(path.Join(p.folder, name), data)
	}
	f, err := p.Create(name, int64(len(data)))
	if err == nil && len(data) > 0 {
		_, err = f.WriteAt(data, 0)
	}
	return err
}

// CopyFile copies a file that stays as it is meanwhile.
func (p placed) CopyFile(ctx context.Context, name string, from source.Source) error {
	if p.stage != nil && from.OnDisk() {
		p.files = append(p.files, path.Join(p.folder, name))
		return p.stage.CopyFile(ctx, path.Join(p.folder, name), from.Path)
	}
	f, err := from.Open(from.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	to, err := p.Create(name, f.Info.Size())
	if err != nil {
		return err
	}
	if err := copyTo(ctx, to, f); err != nil {
		return fmt.Errorf("%s: %w", from.Path, err)
	}
	same, err := from.Unchanged(from.Path, f.Info)
	if err == nil && !same {
		err = usage.SourceErrorf("%s: changed while it was copied", from.Path)
	}
	return err
}

// copyTo copies all of a file.
func copyTo(ctx context.Context, to io.WriterAt, from *source.File) error {
	const step = 1 << 20
	size := from.Info.Size()
	buffer := make([]byte, min(size, step))
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		some := buffer[:min(size-off, step)]
		if n, err := from.Sections.ReadAt(some, off); n < len(some) {
			return cmp.Or(err, io.ErrUnexpectedEOF)
		}
		if _, err := to.WriteAt(some, off); err != nil {
			return err
		}
		watch.Of(ctx).Wrote(len(some))
		watch.Of(ctx).Did(int64(len(some)))
		off += int64(len(some))
	}
	return nil
}
