package verify

import (
	"context"
	"crypto/sha256"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/digest"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// HashOptions are tensorpress.HashOptions, field by field.
type HashOptions struct {
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}

// Hash is [Inspect] with the hashes of all tensors, each read once.
func Hash(ctx context.Context, what files.Source, o HashOptions) (*report.Inspection, error) {
	v, err := Inspect(ctx, what)
	if err != nil {
		return nil, err
	}
	from := source.Of(ctx, what)
	folders, err := bundle.ModelsOf(from)
	if err != nil {
		return nil, err
	}
	r := engine.Resources{Threads: o.Threads, Memory: o.Memory, Progress: o.Progress}
	watch.Of(ctx).Enter(watch.Hashing)
	done := engine.Counter(r, v.Bytes)
	hashes := map[string]string{}
	for _, folder := range folders {
		if err := hashModel(ctx, from, folder, r, done, hashes); err != nil {
			return nil, err
		}
	}
	for i := range v.Tensors {
		v.Tensors[i].SHA256 = hashes[v.Tensors[i].Name]
	}
	for _, l := range v.Layers {
		for i := range l.Tensors {
			l.Tensors[i].SHA256 = hashes[l.Tensors[i].Name]
		}
	}
	return v, nil
}

// hashModel adds the hashes of one model's tensors, by their names in the whole.
func hashModel(ctx context.Context, from source.Source, folder string, r engine.Resources, done func(int64), hashes map[string]string) error {
	c, err := checkpoint.OpenPart(from, folder)
	if err != nil {
		return err
	}
	defer c.Close()
	found := make([]string, len(c.Tensors))
	tasks := func(yield func(stream.Task) bool) {
		for i, t := range c.Tensors {
			if !yield(stream.Task{Bytes: t.Size, Do: func(w *stream.Worker) (err error) {
				found[i], err = hashTensor(ctx, w, c, t)
				return err
			}}) {
				return
			}
		}
	}
	if err := stream.Run(ctx, engine.Workers(r), tasks, done); err != nil {
		return err
	}
	for i, t := range c.Tensors {
		name := t.Name
		if folder != "" {
			name = folder + "/" + name
		}
		hashes[name] = found[i]
	}
	return c.Unchanged()
}

// hashTensor hashes a tensor's bytes as they lie in the file.
func hashTensor(ctx context.Context, w *stream.Worker, c *checkpoint.Checkpoint, t checkpoint.Tensor) (string, error) {
	const step = 1 << 20
	h := sha256.New()
	for off := int64(0); off < t.Size; off += step {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		some := w.Bytes(engine.RawBuffer, int(min(step, t.Size-off)))
		if err := c.ReadSection(t, some, off); err != nil {
			return "", err
		}
		h.Write(some)
	}
	w.Done(t.Size)
	return digest.Text(h), nil
}
