package convert

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"sync"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/shards"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/safetensors"
)

// writeShards writes those that are not finished, one after the other; each is finished
// while the next is written.
func (k *keeping) writeShards(ctx context.Context, done *remaining) error {
	watch.Of(ctx).Enter(watch.Writing)
	run, stop := context.WithCancel(ctx)
	defer stop()
	f := newFinishing(ctx, k.work, stop)
	residency := engine.NewResidency(k.w.Resources)
	tasks := func(yield func(stream.Task) bool) {
		for i, one := range k.Models {
			left := k.left(i)
			p := one.Plan.Of(left)
			one.Writers = make([]*bodies.Writer, len(p.Files))
			begin := func(file int, yield func(stream.Task) bool) bool {
				return !left(file) || f.begin(one, file, yield)
			}
			q := &engine.Quantization{Source: one.Checkpoint, Plan: p, Writers: one.Writers, Begin: begin, Residency: residency, Stage: k.out, Resources: k.w.Resources}
			if !q.Tasks(yield) {
				return
			}
		}
	}
	err := stream.Run(run, engine.Workers(k.w.Resources), tasks, done.count)
	records, failed := f.end(err == nil)
	for _, r := range records {
		k.done[r.Name] = r
	}
	if failed != nil { // it ended the run
		return failed
	}
	return err
}

// finishers is how many shards are finished at a time, and waiting how many may wait for
// that before the next is begun: as many files stay open.
const (
	finishers = 2
	waiting   = 6
)

// finishing finishes shards beside the run that writes them.
type finishing struct {
	ctx  context.Context
	work shards.Work
	stop func() // ends the run
	turn chan struct{}
	busy sync.WaitGroup

	mu      sync.Mutex
	fewer   *sync.Cond
	open    map[*shardDraft]bool // those that are not finished
	whole   int                  // how many of them are written
	closed  bool
	records []shards.Record
	err     error // the first
}

type shardDraft struct {
	shards.Draft
	writer *bodies.Writer
}

func newFinishing(ctx context.Context, work shards.Work, stop func()) *finishing {
	f := &finishing{ctx: ctx, work: work, stop: stop, turn: make(chan struct{}, finishers), open: map[*shardDraft]bool{}}
	f.fewer = sync.NewCond(&f.mu)
	return f
}

// begin begins a shard and yields the writing of its header.
func (f *finishing) begin(one *bundle.Model, file int, yield func(stream.Task) bool) bool {
	d, err := f.draft(path.Join(one.Folder, one.Plan.Files[file].Name), one.Plan.Files[file].Header)
	if err != nil {
		yield(stream.Task{Do: func(*stream.Worker) error { return err }})
		return false
	}
	one.Writers[file] = d.writer
	return yield(stream.Task{Do: func(*stream.Worker) error { return d.writer.WriteHeader() }})
}

// draft begins a shard, once few are yet to be finished.
func (f *finishing) draft(name string, header *safetensors.Header) (*shardDraft, error) {
	if !f.mayBegin() {
		return nil, errOver
	}
	one, err := f.work.Begin(name, header.FileSize())
	if err != nil {
		return nil, err
	}
	d := &shardDraft{one, bodies.NewWriter(written(one), header)}
	watched(f.ctx, []*bodies.Writer{d.writer})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errors.Join(errOver, d.Discard())
	}
	f.open[d] = true
	d.writer.WhenWhole(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.whole++
		f.busy.Go(func() { f.finish(d) })
	})
	return d, nil
}

// errOver is what a run hears that is over: nobody does.
var errOver = errors.New("the run is over")

// mayBegin waits until few shards are whole and not finished; it reports false when the run
// is over.
func (f *finishing) mayBegin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.whole > finishers+waiting && !f.closed {
		f.fewer.Wait()
	}
	return !f.closed
}

// finish finishes a shard, all of which is written.
func (f *finishing) finish(d *shardDraft) {
	f.turn <- struct{}{}
	r, err := d.Finish(f.ctx)
	<-f.turn
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole--
	f.fewer.Broadcast()
	if err == nil {
		delete(f.open, d)
		f.records = append(f.records, r)
		return
	}
	if f.err == nil {
		f.err = err
	}
	f.stop()
}

// end waits for what is written, and removes what is not.
func (f *finishing) end(done bool) (records []shards.Record, err error) {
	f.mu.Lock()
	f.closed = true
	f.fewer.Broadcast()
	f.mu.Unlock()
	f.busy.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	err = f.err
	for d := range f.open {
		if done && err == nil {
			err = d.writer.Finish() // says what is missing
		}
		err = errors.Join(err, d.Discard())
	}
	return f.records, err
}

// written is the file to which the system may copy, where a draft is one.
func written(d shards.Draft) io.WriterAt {
	if of, ok := d.(interface{ Unwrap() *os.File }); ok {
		return of.Unwrap()
	}
	return d
}

// writeBeside writes what stands beside the weights, of a part that has it.
func (k *keeping) writeBeside(ctx context.Context, _ *remaining) error {
	if len(k.wanted()) == k.to-k.from {
		return nil
	}
	watch.Of(ctx).Enter(watch.Writing)
	b := &besides{ctx: ctx, keeping: k}
	out := bundle.Through(b, k.w.dest.String())
	return k.companions(ctx, func(folder string) bundle.Sink { return beside{out.In(folder), b, folder} }, k.w.dest.String())
}

// besides writes files one after the other, each of which is finished at once.
type besides struct {
	*keeping
	ctx   context.Context
	draft shards.Draft // of the file that is being written
}

// Create begins a file.
func (b *besides) Create(name string, size int64) (w io.WriterAt, err error) {
	b.draft, err = b.work.Begin(name, size)
	return b.draft, err
}

// Commit has nothing to do: every file is finished.
func (b *besides) Commit(context.Context) error { return nil }

// Abort likewise.
func (b *besides) Abort() error { return nil }

// end finishes the file, or discards it after an error.
func (b *besides) end(err error) error {
	d := b.draft
	if b.draft = nil; d == nil {
		return err
	}
	if err == nil {
		var r shards.Record
		if r, err = d.Finish(b.ctx); err == nil {
			b.done[r.Name] = r
			return nil
		}
	}
	return errors.Join(err, d.Discard())
}

// beside is a folder of them.
type beside struct {
	bundle.Sink
	to     *besides
	folder string
}

func (b beside) there(name string) bool {
	_, ok := b.to.done[path.Join(b.folder, name)]
	return ok
}

// WriteFile writes a file that is not finished.
func (b beside) WriteFile(name string, data []byte) error {
	if b.there(name) {
		return nil
	}
	return b.to.end(b.Sink.WriteFile(name, data))
}

// CopyFile copies one.
func (b beside) CopyFile(ctx context.Context, name string, from source.Source) error {
	if b.there(name) {
		return nil
	}
	watch.Of(ctx).Expect(bytesOf(from))
	return b.to.end(b.Sink.CopyFile(ctx, name, from))
}
