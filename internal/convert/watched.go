package convert

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/digest"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// watched has what goes into files counted, for whoever watches the run.
func watched(ctx context.Context, files []*bodies.Writer) {
	if run := watch.Of(ctx); run != nil {
		for _, w := range files {
			w.Tell(run.Wrote)
		}
	}
}

// bytesHashed is how much of the output is hashed once it is there.
func (j *job) bytesHashed() int64 {
	if !j.out.Readable() {
		return 0
	}
	n := j.beside
	for _, one := range j.Models {
		for _, f := range one.Plan.Files {
			n += f.Header.FileSize()
		}
	}
	return n
}

// bytesHashed is the same of an assembly.
func (a *assembly) bytesHashed(out *bundle.Output) int64 {
	if !out.Readable() {
		return 0
	}
	return a.told.Bytes
}

// bytesOf is the size of a file, as far as that is known.
func bytesOf(file source.Source) int64 { return digest.Bytes([]source.Source{file}) }
