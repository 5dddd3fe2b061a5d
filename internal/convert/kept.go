package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/shards"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// keeps reports whether what is finished of an output is kept.
func (o Options) keeps() bool { return o.Resume || o.divided() }

// divided reports whether a part of an output is written.
func (o Options) divided() bool { return o.Part != 0 || o.Parts != 0 }

// checkKept refuses what does not go with that. The destination may be nil.
func (o Options) checkKept(to files.Sink) error {
	if !o.keeps() {
		return nil
	}
	dest := nameOf(to)
	if dest != "" {
		if _, err := shards.Of(to); err != nil {
			return err
		}
	}
	if dest != "" && !bundle.IsFolder(dest) {
		return usage.Errorf("`%s` is for outputs of several files, and %s is one file: name a folder, or leave it out", o.keepsBy(), dest)
	}
	if !o.divided() {
		return nil
	}
	if o.Parts < 1 || o.Parts > shards.MostParts || o.Part < 1 || o.Part > o.Parts {
		return usage.Errorf("`Part` %d of %d: want 1 to as many as there are, at most %d", o.Part, o.Parts, shards.MostParts)
	}
	switch {
	case o.chooses():
		return usage.Errorf("`Part` does not go with a budget, for which each part would measure the whole model: let plan write its choice as a lock, and give that recipe to every part")
	case o.Fit > 0:
		return usage.Errorf("`Part` does not go with `Fit`: give every part the `Bits` that it chooses")
	case o.Measure:
		return usage.Errorf("`Part` does not go with `Measure`: verify the output against its source once all parts are there")
	}
	return nil
}

// keepsBy is the option by which it does.
func (o Options) keepsBy() string {
	if o.divided() {
		return "Part"
	}
	return "Resume"
}

// checkDynamic refuses dtypes that each part would have to measure.
func (j *job) checkDynamic() error {
	if !j.asked.divided() {
		return nil
	}
	for _, one := range j.Models {
		for i := range one.Plan.Steps {
			if s := &one.Plan.Steps[i]; s.Action == plan.Quantize && s.Settings != nil && s.Settings.Dynamic {
				return usage.Errorf("`Part` does not go with `Dynamic`, for which each part would measure the whole model: quantize it `Like` one that was chosen so, or name the dtypes by `Rules`")
			}
		}
	}
	return nil
}

// KeptError is the error of a run of which what is finished is kept.
type KeptError struct {
	error
	Folder   string // where
	Done, Of int    // shards, of the part where Part is set
	Part     bool   // others may have finished theirs
}

func (e *KeptError) Unwrap() error { return e.error }

// keeping is a job of which what is finished is kept.
type keeping struct {
	*job
	w        writing
	plan     *shards.Plan
	work     shards.Work
	from, to int                      // the shards of the part
	done     map[string]shards.Record // of the part, and the files beside the weights
	before   map[string]shards.Record // those that were when the run began
	told     []string                 // notes
}

// shardFiles are all weight files of an output, in their order.
func (j *job) shardFiles() (all []shards.File) {
	for _, one := range j.Models {
		for _, f := range one.Plan.Files {
			all = append(all, shards.File{Name: path.Join(one.Folder, f.Name), Bytes: f.Header.FileSize()})
		}
	}
	return all
}

// narrow leaves of the models' plans what is of the part, and returns which shards those
// are.
func (j *job) narrow() (from, to int) {
	all := j.shardFiles()
	from, to = 0, len(all)
	if j.asked.divided() {
		from, to = (&shards.Plan{Shards: all}).Part(j.asked.Part, j.asked.Parts)
		first := 0 // shard of the model
		for _, one := range j.Models {
			one.Plan = one.Plan.Of(func(file int) bool { return first+file >= from && first+file < to })
			first += len(one.Plan.Files)
		}
	}
	j.shards = &report.Shards{Part: j.asked.Part, Parts: j.asked.Parts, Count: len(all), Files: make([]report.Shard, to-from)}
	for i, f := range all[from:to] {
		j.shards.Files[i] = report.Shard{Name: f.Name, Bytes: f.Bytes}
	}
	return from, to
}

// tellShards adds to a report the shards of a run that keeps them.
func (j *job) tellShards(r *report.Report) {
	if j.shards == nil {
		return
	}
	r.Shards = j.shards
	if j.asked.divided() {
		r.Files = nil
		for _, f := range j.shards.Files {
			r.Files = append(r.Files, f.Name)
		}
	}
}

// planKept is the plan of a run that keeps what is finished, with what of it is.
func (j *job) planKept(ctx context.Context, dest files.Sink) error {
	if !j.asked.keeps() {
		return nil
	}
	if err := j.checkDynamic(); err != nil {
		return err
	}
	if nameOf(dest) == "" {
		j.narrow()
		return nil
	}
	to, err := shards.Of(dest)
	if err != nil {
		return err
	}
	if _, err := j.output(dest, true); err != nil { // lists what stands beside the weights
		return err
	}
	p, err := j.shardPlan()
	if err != nil {
		return err
	}
	j.narrow()
	kept, finished, err := to.Kept(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(finished) > 0 {
		err = p.Differs(kept, "what is there", nameOf(dest))
	}
	for i, f := range j.shards.Files {
		j.shards.Files[i].Kept = slices.Contains(finished, f.Name)
	}
	return err
}

// keep writes the shards that are not finished, and at the end, where they are all, puts
// the output in place.
func (j *job) keep(ctx context.Context, w writing) (*report.Report, error) {
	k := &keeping{job: j, w: w}
	if err := k.open(ctx); err != nil {
		return nil, err
	}
	defer j.out.Abort() // of a panic, else it is done
	r, err := k.run(ctx, time.Now())
	if err != nil {
		err = &KeptError{j.out.Named(err), k.work.Folder(), k.finished(), k.to - k.from, k.asked.divided()}
	}
	return r, errors.Join(err, j.out.Abort())
}

// open opens the place where what is finished is kept. All that is decided is fixed by then.
func (k *keeping) open(ctx context.Context) error {
	to, err := shards.Of(k.w.dest)
	if err != nil {
		return err
	}
	o, err := k.output(k.w.dest, k.w.force)
	if err != nil {
		return err
	}
	if k.plan, err = k.shardPlan(); err != nil {
		return err
	}
	if err := k.Unchanged(); err != nil { // else the plan has the fingerprint of what was not read
		return err
	}
	k.from, k.to = k.narrow()
	if k.work, err = to.Keep(ctx, o, k.plan, !k.asked.divided()); err != nil {
		return err
	}
	k.out = bundle.KeptIn(k.work, k.w.dest.String(), k.plan.Contents().Files)
	return nil
}

// wanted are the files of the part. What stands beside the weights is of the part that has
// the first shard.
func (k *keeping) wanted() []shards.File {
	if k.from == 0 && k.to > 0 {
		return slices.Concat(k.plan.Shards[:k.to], k.plan.Others)
	}
	return k.plan.Shards[k.from:k.to]
}

// finished is how many shards of the part are.
func (k *keeping) finished() (n int) {
	for _, f := range k.plan.Shards[k.from:k.to] {
		if _, ok := k.done[f.Name]; ok {
			n++
		}
	}
	return n
}

func (k *keeping) run(ctx context.Context, start time.Time) (*report.Report, error) {
	if k.w.again && !k.out.Readable() {
		return nil, usage.Errorf("%s cannot be read before it is whole, and its errors are not measured then: measure them afterwards, or write to a path", k.w.dest)
	}
	var hashes *hashing
	if k.w.hash {
		hashes = startHashing(ctx, k.sourceFiles(), 0, k.w.Resources)
		defer hashes.stop()
	}
	told := make(chan *report.Report, 1)
	go func() { told <- k.report(k.w.dest.String(), time.Since(start)) }()
	done := remaining{done: engine.Counter(k.w.Resources, k.job.work(k.asked))}
	for _, step := range []func(context.Context, *remaining) error{k.look, k.room, k.writeBeside, k.writeShards} {
		if err := step(ctx, &done); err != nil {
			<-told
			return nil, err
		}
	}
	r := <-told
	for i, f := range r.Shards.Files {
		_, r.Shards.Files[i].Kept = k.before[f.Name]
	}
	r.Seconds = time.Since(start).Seconds()
	if err := k.measure(ctx, k.asked, done.count, r); err != nil {
		return nil, err
	}
	if err := k.tell(ctx, hashes, r); err != nil {
		return nil, err
	}
	if err := k.Unchanged(); err != nil {
		return nil, err
	}
	return r, k.end(ctx, r)
}

// look finds what is finished.
func (k *keeping) look(ctx context.Context, done *remaining) (err error) {
	watch.Of(ctx).Enter(watch.Hashing)
	var names []string
	for _, f := range k.wanted() {
		names = append(names, f.Name)
	}
	in, out := k.BytesIn(), max(k.BytesOut(), 1)
	read := int64(0)
	c := shards.Checking{AtOnce: engine.Workers(k.w.Resources), Count: func(n int64) {
		read += n
		done.upTo(int64(float64(in) * min(float64(read)/float64(out), 1)))
	}}
	var wrong []shards.Wrong
	if k.done, wrong, err = k.work.Done(ctx, names, c); err != nil {
		return err
	}
	for _, one := range wrong {
		k.told = append(k.told, one.Text+": it is made again")
	}
	n := k.finished()
	k.before = maps.Clone(k.done)
	if n > 0 {
		k.told = append(k.told, fmt.Sprintf("%d of %d shards were finished before, and are taken as they are", n, k.to-k.from))
	}
	var skipped int64
	for i, one := range k.Models {
		skipped += one.Plan.BytesIn - one.Plan.BytesInOf(k.left(i))
	}
	done.exactly(skipped)
	return nil
}

// left returns which files of a model are to be written.
func (k *keeping) left(model int) func(file int) bool {
	first := 0
	for _, one := range k.Models[:model] {
		first += len(one.Plan.Files)
	}
	return func(file int) bool {
		n := first + file
		if n < k.from || n >= k.to {
			return false
		}
		_, there := k.done[k.plan.Shards[n].Name]
		return !there
	}
}

// room makes sure that what is left to write fits.
func (k *keeping) room(context.Context, *remaining) error {
	var needed int64
	for _, f := range k.wanted() {
		if _, there := k.done[f.Name]; !there {
			needed += f.Bytes
		}
	}
	if free := k.out.Free(); free >= 0 && free < needed {
		return &spaceError{k.w.dest.String(), needed, free, k.out.Notes()}
	}
	return nil
}

// tell adds to a report which files there are.
func (k *keeping) tell(ctx context.Context, hashes *hashing, r *report.Report) (err error) {
	if hashes == nil {
		return nil
	}
	watch.Of(ctx).Enter(watch.Hashing)
	r.Provenance = &report.Provenance{Settings: report.Options{}}
	if r.Provenance.Sources, err = hashes.sources.Wait(); err != nil {
		return err
	}
	var stored []string
	for _, f := range k.wanted() {
		one := k.done[f.Name]
		if one.SHA256 == "" {
			stored = append(stored, f.Name)
			continue
		}
		r.Provenance.Outputs = append(r.Provenance.Outputs, report.File{Path: placeOf(r.Dest, f.Name), Bytes: f.Bytes, SHA256: one.SHA256})
	}
	slices.SortFunc(r.Provenance.Outputs, func(a, b report.File) int { return cmp.Compare(a.Path, b.Path) })
	if len(stored) > 0 {
		r.Notes = append([]string{fmt.Sprintf("of %d files the report has no sha256, %s first", len(stored), stored[0])}, r.Notes...)
	}
	return nil
}

// end puts the output in place, or says how that is done once all parts are there.
func (k *keeping) end(ctx context.Context, r *report.Report) error {
	if k.asked.divided() {
		k.shards.Folder = k.work.Folder()
		switch {
		case k.from == k.to:
			k.told = append(k.told, fmt.Sprintf("part %d of %d has no shards, since the output has %d: there is nothing to do", k.asked.Part, k.asked.Parts, len(k.plan.Shards)))
		default:
			text := "once all parts are there, `tensorpress finish " + k.w.dest.String() + "` puts the output in place"
			if k.w.force {
				text += ", with `Force` instead of what is there"
			}
			k.told = append(k.told, text)
		}
		r.Notes = slices.Concat(k.out.Notes(), r.Notes, k.told)
		return nil
	}
	begun := time.Now()
	watch.Of(ctx).Enter(watch.Placing)
	if err := k.work.Commit(ctx); err != nil {
		return err
	}
	if _, ok := k.w.dest.(files.Dir); !ok {
		r.Seconds += time.Since(begun).Seconds()
	}
	r.Notes = slices.Concat(k.out.Notes(), k.told, r.Notes)
	r.Next = k.next(k.w.dest)
	return nil
}

// remaining counts progress, of which some is counted before it is known exactly.
type remaining struct {
	done  func(n int64) // nil for nobody
	told  int64
	ahead int64 // that was counted too early
}

// upTo counts what is missing to n bytes.
func (r *remaining) upTo(n int64) {
	if n > r.told {
		r.tell(n - r.told)
	}
}

// exactly says what it is after all.
func (r *remaining) exactly(n int64) {
	r.upTo(n)
	r.ahead = r.told - n
}

// count counts n bytes more.
func (r *remaining) count(n int64) {
	early := min(n, r.ahead)
	r.ahead -= early
	r.tell(n - early)
}

func (r *remaining) tell(n int64) {
	if r.told += n; n > 0 && r.done != nil {
		r.done(n)
	}
}
