package convert

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/shards"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// FinishOptions are tensorpress.FinishOptions.
type FinishOptions struct {
	Force    bool
	Threads  int
	Progress func(done, total int64)
}

// Finish puts an output in place of which all parts are there.
func Finish(ctx context.Context, dest files.Sink, o FinishOptions) (*report.Finished, error) {
	to, err := shards.Of(dest)
	if err != nil {
		return nil, err
	}
	r, err := finishIn(ctx, to, dest, o)
	if err == nil || ctx.Err() != nil {
		return r, err
	}
	// Another may have done it meanwhile: then it is well.
	if _, _, kept := to.Kept(ctx); errors.Is(kept, fs.ErrNotExist) {
		if before, none := finishedBefore(ctx, to, dest); none == nil {
			return before, nil
		}
	}
	return nil, err
}

func finishIn(ctx context.Context, to shards.Sink, dest files.Sink, o FinishOptions) (*report.Finished, error) {
	start := time.Now()
	if !bundle.IsFolder(dest.String()) {
		return nil, usage.Errorf("%s is one file, of which there are no parts: name a folder", dest)
	}
	p, _, err := to.Kept(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return finishedBefore(ctx, to, dest)
	}
	if err != nil {
		return nil, err
	}
	w, err := to.Keep(ctx, stage.Output{Dest: dest.String(), Folder: true, Force: o.Force, Contents: p.Contents()}, p, true)
	if err != nil {
		return nil, err
	}
	defer w.Abort() // of a panic, else it is done
	r, err := finish(ctx, w, p, o)
	if err == nil {
		r.Dest, r.Notes, r.Seconds = dest.String(), slices.Concat(w.Notes(), r.Notes), time.Since(start).Seconds()
		var l *loading
		if json.Unmarshal(p.Next, &l) == nil { // an older plan has none
			r.Next = l.at(dest)
		}
	}
	return r, errors.Join(err, w.Abort())
}

// workFolder refuses the folder that keeps what is finished of an output, whose weights are
// not those of an output in place.
func workFolder(dest files.Sink) error {
	dir, ok := dest.(files.Dir)
	if !ok {
		return nil
	}
	_, err := os.Stat(filepath.Join(dir.String(), stage.Records, shards.PlanName))
	if err != nil {
		return nil // as is almost any folder
	}
	return usage.Errorf("%s keeps what is finished of %s: name that", dir, stage.DestOf(dir.String()))
}

// finishedBefore is a call after another, which a scheduler may repeat.
func finishedBefore(ctx context.Context, to shards.Sink, dest files.Sink) (*report.Finished, error) {
	if err := workFolder(dest); err != nil {
		return nil, err
	}
	whole, err := to.Whole(ctx)
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, usage.Errorf("%s: there is nothing to finish: no part of it is there", to)
	}
	r := &report.Finished{Dest: to.String(), Files: []report.File{}, Already: true}
	if sink, ok := dest.(files.Dir); ok {
		r.Notes = stage.Leftovers(sink.String())
	}
	return r, nil
}

func finish(ctx context.Context, w shards.Work, p *shards.Plan, o FinishOptions) (*report.Finished, error) {
	all := slices.Concat(p.Shards, p.Others)
	r := &report.Finished{Shards: len(p.Shards), Files: []report.File{}}
	var names []string
	for _, f := range all {
		names = append(names, f.Name)
		r.Bytes += f.Bytes
	}
	watch.Of(ctx).Enter(watch.Hashing)
	resources := engine.Resources{Threads: o.Threads, Progress: o.Progress}
	done, wrong, err := w.Done(ctx, names, shards.Checking{AtOnce: engine.Workers(resources), Count: engine.Counter(resources, r.Bytes)})
	if err != nil {
		return nil, err
	}
	if err := missing(p, done, wrong); err != nil {
		return nil, err
	}
	for _, f := range all {
		one := done[f.Name]
		r.Files = append(r.Files, report.File{Path: f.Name, Bytes: one.Bytes, SHA256: one.SHA256})
	}
	watch.Of(ctx).Enter(watch.Placing)
	return r, w.Commit(ctx)
}

// missing is the error of an output of which not all is there; it says what to run again.
func missing(p *shards.Plan, done map[string]shards.Record, wrong []shards.Wrong) error {
	texts := map[string]string{}
	for _, one := range wrong {
		texts[one.Name] = one.Text
	}
	lacking := func(all []shards.File) (names, said []string) {
		for _, f := range all {
			if _, ok := done[f.Name]; ok {
				continue
			}
			names, said = append(names, f.Name), append(said, cmp.Or(texts[f.Name], f.Name))
		}
		return names, said
	}
	var text string
	of, said := lacking(p.Shards)
	others, saidOthers := lacking(p.Others)
	switch {
	case len(of) > 0:
		text = fmt.Sprintf("%d of %d shards are not finished: %s", len(of), len(p.Shards), few(said))
	case len(others) > 0: // it is of the part that has the first shard
		text, of = "what stands beside the weights is not finished: "+few(saidOthers), []string{p.Shards[0].Name}
	default:
		return nil
	}
	return usage.Errorf("%s: %s", text, p.Again(of))
}

// few names the first of many.
func few(names []string) string {
	const some = 4
	if len(names) <= some {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:some], ", "), len(names)-some)
}
