package convert

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/digest"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// hashing is the hashing of a job's files, nil where nobody asked for it. Sources on disk
// are read once more, from their beginning to their end, while the job reads them in the
// order of its own: what comes second finds most of it in the system's memory, and reading
// is a twentieth of the work. Sources far away are hashed as they come.
type hashing struct {
	sources *digest.Run
	atOnce  int
	output  int64           // bytes of the output, as far as they were known before
	of      map[string]bool // paths of those that the job reads, where others' are among them; nil for all
}

func startHashing(ctx context.Context, files []source.Source, output int64, r engine.Resources) *hashing {
	atOnce := engine.Workers(r)
	sources := digest.Along(ctx, files, atOnce)
	watch.Of(ctx).Expect(sources.Bytes() + output)
	return &hashing{sources: sources, atOnce: atOnce, output: output}
}

func (h *hashing) stop() {
	if h != nil {
		h.sources.Stop()
	}
}

// tell returns what the sources are, and an output that is whole and not in its place yet;
// notes say what could not be hashed.
func (h *hashing) tell(ctx context.Context, out *bundle.Output, dest string) (p *report.Provenance, notes []string, err error) {
	if h == nil {
		return nil, nil, nil
	}
	watch.Of(ctx).Enter(watch.Hashing)
	p = &report.Provenance{Settings: report.Options{}}
	if p.Sources, err = h.sources.Wait(); err != nil {
		return nil, nil, err
	}
	if h.of != nil {
		p.Sources = slices.DeleteFunc(slices.Clone(p.Sources), func(f report.File) bool { return !h.of[f.Path] })
	}
	names := out.Files()
	if !out.Readable() {
		names, notes = nil, []string{dest + " cannot be read before it is whole: the report has no sha256 of it"}
	}
	slices.Sort(names)
	var written []source.Source
	for _, name := range names {
		written = append(written, out.Written(ctx, name))
	}
	watch.Of(ctx).Expect(digest.Bytes(written) - h.output)
	if p.Outputs, err = digest.Start(ctx, written, h.atOnce).Wait(); err != nil {
		return nil, nil, err
	}
	for i, name := range names {
		p.Outputs[i].Path = placeOf(dest, name)
	}
	return p, notes, nil
}

// placeOf is where a file of an output will be.
func placeOf(dest, name string) string {
	name = filepath.FromSlash(name)
	switch {
	case strings.Contains(dest, "://"):
		return name
	case filepath.Ext(filepath.Clean(dest)) == ".safetensors":
		return filepath.Join(filepath.Dir(dest), name)
	}
	return filepath.Join(dest, name)
}

// weightFiles are those of a checkpoint, with the index.
func weightFiles(c *checkpoint.Checkpoint) (all []source.Source) {
	for _, name := range slices.Concat(c.ShardNames, []string{c.Index}) {
		if name != "" {
			all = append(all, c.Beside(name))
		}
	}
	return all
}

// weightsRead are those of a model that the job reads: of a part of the output not all.
func (j *job) weightsRead(one *bundle.Model) (some []source.Source) {
	c := one.Checkpoint
	if !j.asked.divided() {
		return weightFiles(c)
	}
	read := shardsRead(one.Plan)
	for i, name := range c.ShardNames {
		if read[i] {
			some = append(some, c.Beside(name))
		}
	}
	return some
}

// sourceFiles are all files that a job reads or copies, each once.
func (j *job) sourceFiles() (all []source.Source) {
	seen := map[string]bool{}
	add := func(s source.Source) {
		if info, err := s.Stat(s.Path); err == nil && info.Mode().IsRegular() && !seen[s.Path] {
			seen[s.Path] = true
			all = append(all, s)
		}
	}
	for _, one := range j.Models {
		c := one.Checkpoint
		for _, file := range j.weightsRead(one) {
			add(file)
		}
		if c.IsModel() && !j.asked.divided() {
			for _, name := range slices.Concat([]string{"config.json", layout.ConfigFile}, one.Copied()) {
				add(c.Beside(name))
			}
		}
	}
	if j.Others != nil && !j.asked.divided() {
		for _, name := range j.Others.Files {
			add(j.Source.In(name))
		}
	}
	for _, file := range j.adapters.Files() {
		add(file)
	}
	for _, file := range j.likeFiles() {
		add(file)
	}
	for _, path := range []string{j.asked.Config, j.asked.LayerConfig, j.asked.Importance} {
		if path != "" {
			add(source.Path(path))
		}
	}
	return all
}
