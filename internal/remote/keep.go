package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/shards"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// What tells of an output that is not whole lies in a folder of the destination that no
// reader of models looks into. Weights stand where they will be from the first on; what
// leads readers to them waits here, and is put beside them at the end.
const (
	recordsFolder = stage.Records + "/"
	planName      = recordsFolder + shards.PlanName
	replacedName  = recordsFolder + "replaced.json" // versions of an older output's objects, by their names
	recordFolder  = recordsFolder + "records/"
	waitingFolder = recordsFolder + "files/"
)

func isRecord(name string) bool { return strings.HasPrefix(name, recordsFolder) }

func recordOf(name string) string { return recordFolder + stage.RecordOf(name) }

// place is where a file is kept until the output is whole.
func place(name string) string {
	if rank(name) > 0 {
		return waitingFolder + name
	}
	return name
}

// within is the key of a name in the folder.
func (s *storeSink) within(name string) string { return strings.TrimPrefix(s.key+"/"+name, "/") }

// list is all that is in the folder.
func (s *storeSink) list(ctx context.Context) (map[string]object, error) {
	held, err := s.objects(ctx, s.key, true)
	if err != nil {
		err = fmt.Errorf("%s: %w", s, err)
	}
	return held, err
}

// small reads an object that is a text. The error is an [fs.ErrNotExist] where there is none.
func (s *storeSink) small(ctx context.Context, name string) ([]byte, object, error) {
	for {
		o, ok, err := s.object(ctx, s.within(name))
		if err != nil {
			return nil, o, fmt.Errorf("%s: %w", s, err)
		}
		if !ok {
			return nil, o, &fs.PathError{Op: "open", Path: s.named(s.within(name)), Err: fs.ErrNotExist}
		}
		text, _, err := s.text(ctx, s.reading(o))
		if status := (*statusError)(nil); errors.As(err, &status) && (status.status == http.StatusNotFound || status.status == http.StatusPreconditionFailed) {
			continue // another has put it anew, or removed it
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", s, s.explain(err, "read"))
		}
		return text, o, err
	}
}

// putText makes a short object. Fresh fails where there is one, with the store's answer.
func (s *storeSink) putText(ctx context.Context, name string, text []byte, fresh bool) error {
	key := s.within(name)
	_, _, err := s.text(ctx, s.put(key, hashed(s, text), fresh))
	if status := (*statusError)(nil); fresh && errors.As(err, &status) {
		switch {
		case status.status == http.StatusNotImplemented: // a store without conditions
			return s.putText(ctx, name, text, false)
		case taken(status):
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.named(key), s.explain(err, "write"))
	}
	return nil
}

// Kept is the plan of the output of which something is finished, and the names of the
// weights that have a record.
func (s *storeSink) Kept(ctx context.Context) (p *shards.Plan, finished []string, err error) {
	if p, err = s.keptPlan(ctx); err != nil {
		return nil, nil, err
	}
	held, err := s.list(ctx)
	if err != nil {
		return nil, nil, err
	}
	return p, finishedOf(p, held), nil
}

func (s *storeSink) keptPlan(ctx context.Context) (*shards.Plan, error) {
	text, _, err := s.small(ctx, planName)
	if err != nil {
		return nil, err
	}
	return shards.Decode(text, s.String())
}

// Whole reports whether a model is there, and removes records that a run has left that was
// killed as it removed them, of which the plan is the first.
func (s *storeSink) Whole(ctx context.Context) (bool, error) {
	held, err := s.list(ctx)
	if err != nil {
		return false, err
	}
	weights, leads := 0, false
	for name := range held {
		if isRecord(name) {
			continue
		}
		if path.Ext(name) == ".safetensors" {
			weights++
		}
		leads = leads || rank(name) > 0
	}
	if weights == 0 || weights > 1 && !leads {
		return false, nil
	}
	return true, s.removeRecords(ctx, held)
}

// removeRecords removes what tells of an output under way, the plan first.
func (s *storeSink) removeRecords(ctx context.Context, held map[string]object) error {
	names := slices.DeleteFunc(sorted(held), func(name string) bool { return !isRecord(name) || name == planName })
	if _, ok := held[planName]; ok {
		names = append([]string{planName}, names...)
	}
	for _, name := range names {
		if err := s.delete(ctx, s.within(name)); err != nil {
			return err
		}
	}
	return nil
}

// Keep begins or continues an output. Stores have no locks: those who do the same at a
// time do no harm.
func (s *storeSink) Keep(ctx context.Context, o stage.Output, p *shards.Plan, _ bool) (shards.Work, error) {
	held, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	k := &kept{storeOutput: s.output(ctx, o, nil), plan: p, id: p.ID(), pace: paceIn(0), known: map[string]bool{}}
	for _, f := range p.Contents().Files {
		k.known[f] = true
	}
	for _, f := range p.Shards {
		k.staging.add(f.Bytes)
	}
	if err := k.open(ctx, held); err != nil {
		return nil, errors.Join(err, k.Abort())
	}
	return k, nil
}

// kept is an output whose finished files stay with the store.
type kept struct {
	*storeOutput
	plan     *shards.Plan
	id       string
	pace     *pace
	known    map[string]bool   // files of the plan
	replaced map[string]string // versions of an older output, by names
}

// open compares the plan with the one that is there, or puts it there.
func (k *kept) open(ctx context.Context, held map[string]object) error {
	there, err := k.keptPlan(ctx)
	if err == nil && there.ID() != k.id {
		if len(finishedOf(there, held)) > 0 {
			return k.plan.Differs(there, k.Folder(), k.of.Dest)
		}
		if err := k.removeRecords(ctx, held); err != nil {
			return err
		}
		held, err = k.list(ctx)
		if err == nil {
			err = fs.ErrNotExist
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = k.begin(ctx, held)
	}
	if err != nil {
		return err
	}
	text, _, err := k.small(ctx, replacedName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && json.Unmarshal(text, &k.replaced) != nil {
		return usage.Errorf("%s: its %s is none of tensorpress's: delete the folder to begin anew", k.of.Dest, path.Base(replacedName))
	}
	if held, err = k.list(ctx); err != nil {
		return err
	}
	if err := k.strays(held); err != nil {
		return err
	}
	return k.hideReplaced(ctx, held)
}

func finishedOf(p *shards.Plan, held map[string]object) (names []string) {
	for _, f := range p.Shards {
		if _, ok := held[recordOf(f.Name)]; ok {
			names = append(names, f.Name)
		}
	}
	return names
}

// begin puts the plan there, where nothing is or what may be replaced.
func (k *kept) begin(ctx context.Context, held map[string]object) error {
	old := map[string]object{}
	for name, one := range held {
		if !isRecord(name) {
			old[name] = one
		}
	}
	if err := k.mayReplace(ctx, k.of, old); err != nil {
		return err
	}
	stale := maps.Clone(held) // of a run that was killed
	for _, name := range []string{planName, replacedName} {
		delete(stale, name) // they may be of another that begins now, and are put anew
	}
	if err := k.removeRecords(ctx, stale); err != nil {
		return err
	}
	if len(old) > 0 { // before the plan, so that whoever sees that knows
		versions := map[string]string{}
		for name, one := range old {
			versions[name] = one.version
		}
		text, _ := json.Marshal(versions) // of texts
		if err := k.putText(ctx, replacedName, text, false); err != nil {
			return err
		}
	}
	err := k.putText(ctx, planName, k.plan.Encode(), true)
	if status := (*statusError)(nil); err != nil && !(errors.As(err, &status) && taken(status)) {
		return err
	}
	return k.ours(ctx) // another may have been faster
}

// ours makes sure that the plan that is there is this one.
func (k *kept) ours(ctx context.Context) error {
	there, err := k.keptPlan(ctx)
	if errors.Is(err, fs.ErrNotExist) || err == nil && there.ID() != k.id {
		return usage.Errorf("%s is no longer that of this run: another has put it in place, or begun it with other settings", k.of.Dest)
	}
	return err
}

// strays refuses what is there and neither of this output nor of the one that it replaces.
func (k *kept) strays(held map[string]object) error {
	for _, name := range sorted(held) {
		if isRecord(name) || k.known[name] || k.isOld(name, held) {
			continue
		}
		return usage.Existsf("%s holds %s, which is no part of what is finished there: move it away", k.of.Dest, name)
	}
	return nil
}

// isOld reports whether an object is one of the output that is replaced.
func (k *kept) isOld(name string, held map[string]object) bool {
	version, ok := k.replaced[name]
	return ok && held[name].version == version
}

// hideReplaced removes what leads readers to the older output, as weights of the new one
// may take the names of its own.
func (k *kept) hideReplaced(ctx context.Context, held map[string]object) error {
	return k.removeReplaced(ctx, held, func(name string) bool { return rank(name) > 0 })
}

func (k *kept) removeReplaced(ctx context.Context, held map[string]object, which func(name string) bool) error {
	for _, name := range sorted(held) {
		if k.isOld(name, held) && which(name) {
			if err := k.delete(ctx, k.within(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Folder is what messages call the place.
func (k *kept) Folder() string { return k.of.Dest }

// Free is not known.
func (k *kept) Free() int64 { return -1 }

// Done compares what the store states of files with their records, and reads those of which
// it states something else.
func (k *kept) Done(ctx context.Context, names []string, c shards.Checking) (map[string]shards.Record, []shards.Wrong, error) {
	held, err := k.list(ctx)
	if err != nil {
		return nil, nil, err
	}
	done, texts := map[string]shards.Record{}, make([]string, len(names))
	errs := make([]error, len(names))
	var mu sync.Mutex
	checking := c
	checking.Count = func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if c.Count != nil {
			c.Count(n)
		}
	}
	var all sync.WaitGroup
	for i, name := range names {
		if _, ok := held[recordOf(name)]; !ok {
			continue
		}
		k.places <- struct{}{}
		all.Go(func() {
			defer func() { <-k.places }()
			r, wrong, err := k.done(ctx, name, held, checking)
			mu.Lock()
			defer mu.Unlock()
			if texts[i], errs[i] = wrong, err; r != nil {
				done[name] = *r
			}
		})
	}
	all.Wait()
	return done, shards.Wrongs(names, texts), errors.Join(errs...)
}

// done is the record of a file, nil where it is not finished; wrong says what is there
// instead.
func (k *kept) done(ctx context.Context, name string, held map[string]object, c shards.Checking) (r *shards.Record, wrong string, err error) {
	text, _, err := k.small(ctx, recordOf(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	r = &shards.Record{}
	if json.Unmarshal(text, r) != nil || r.Name != name || r.Plan != k.id {
		return nil, fmt.Sprintf("%s: its record is another's", name), nil
	}
	one, ok := held[place(name)]
	switch {
	case !ok:
		return nil, name + " was finished and is gone", nil
	case one.size != r.Bytes:
		return nil, fmt.Sprintf("%s has %d bytes, and had %d when it was finished", name, one.size, r.Bytes), nil
	case one.version == r.Stored:
		if c.Count != nil {
			c.Count(one.size)
		}
		return r, "", nil
	}
	sum, err := shards.Sum(ctx, k.opened(ctx, one), one.size, c.Count)
	if err != nil {
		return nil, "", err
	}
	if sum != r.SHA256 {
		return nil, name + " has other bytes than when it was finished", nil
	}
	r.Stored = one.version
	return r, "", k.writeRecord(ctx, *r)
}

func (k *kept) writeRecord(ctx context.Context, r shards.Record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return k.putText(ctx, recordOf(r.Name), append(text, '\n'), false)
}

// opened is an object of the output as it was listed.
func (k *kept) opened(ctx context.Context, o object) files.File {
	return (&stored{bucket: k.bucket, pace: k.pace}).opened(ctx, o)
}

// Open opens a finished file.
func (k *kept) Open(ctx context.Context, name string) (files.File, error) {
	o, ok, err := k.object(ctx, k.within(place(name)))
	if err == nil && !ok {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	return k.opened(ctx, o), nil
}

// Create is not the way to write what is kept.
func (k *kept) Create(name string, _ int64) (io.WriterAt, error) {
	return nil, fmt.Errorf("%s: is written as a draft", name)
}

// Begin begins a file, whose parts go to the store as they become whole.
func (k *kept) Begin(name string, size int64) (shards.Draft, error) {
	u, err := k.create(place(name), size)
	if err != nil {
		return nil, err
	}
	u.sum = sha256.New()
	return &keptFile{u, k, name}, nil
}

// keptFile is a file on its way.
type keptFile struct {
	*upload
	work *kept
	name string
}

// Finish makes an object of the parts and puts a record of it beside them.
func (d *keptFile) Finish(ctx context.Context) (shards.Record, error) {
	r, err := d.finish(ctx)
	if err != nil {
		return shards.Record{}, err
	}
	d.work.leave(d.upload)
	return r, nil
}

func (d *keptFile) finish(ctx context.Context) (r shards.Record, err error) {
	k := d.work
	d.going.Wait()
	if err := k.failed(); err != nil {
		return r, err
	}
	if err := d.written(); err != nil {
		return r, err
	}
	sum, err := d.total()
	if err != nil {
		return r, err
	}
	if err := k.ours(ctx); err != nil {
		return r, err
	}
	if _, err := k.makeObject(ctx, d.upload, true); err != nil {
		return r, err
	}
	d.release()
	one, ok, err := k.object(ctx, k.keyOf(d.upload.name))
	if err == nil && (!ok || one.size != d.size) {
		err = usage.Existsf("%s has become another while this ran: name another destination", k.named(k.keyOf(d.upload.name)))
	}
	if err != nil {
		return r, err
	}
	r = shards.Record{File: shards.File{Name: d.name, Bytes: d.size}, SHA256: hex.EncodeToString(sum), Plan: k.id, Stored: one.version}
	if err := k.writeRecord(ctx, r); err != nil {
		return r, err
	}
	if err := k.ours(ctx); err != nil { // all was put in place meanwhile, by whoever did the same
		return r, errors.Join(err, k.delete(ctx, k.within(recordOf(d.name))))
	}
	return r, nil
}

// Discard gives the file up.
func (d *keptFile) Discard() error {
	d.going.Wait()
	ctx, cancel := d.work.clearing()
	defer cancel()
	d.work.leave(d.upload)
	return d.work.giveUp(ctx, d.upload)
}

// failed is the error of a part that could not be sent.
func (o *storeOutput) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// Commit puts what leads readers to the weights beside them, and removes the records.
func (k *kept) Commit(ctx context.Context) error {
	held, err := k.list(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(k.ours(ctx), k.strays(held)); err != nil {
		return err
	}
	if err := k.lead(ctx, held); err != nil {
		return err
	}
	err = k.removeReplaced(ctx, held, func(name string) bool { return !k.known[name] })
	if err == nil {
		err = k.removeRecords(ctx, held)
	}
	if err != nil {
		k.notes = append(k.notes, fmt.Sprintf("what %s no longer needs could not be removed whole: %v", k.of.Dest, err))
	}
	keys := map[string]bool{}
	for _, f := range slices.Concat(k.plan.Shards, k.plan.Others) {
		if newUpload(nil, "", f.Bytes, partOf(f.Bytes)).inParts() {
			keys[k.within(place(f.Name))] = true
		}
	}
	k.giveUpForsaken(ctx, keys, 0)
	return nil
}

// lead puts the files that lead readers to others in their places, those that lead to most
// last. After an error those that it has put are taken back, unless another has ended the
// work meanwhile.
func (k *kept) lead(ctx context.Context, held map[string]object) (err error) {
	var names []string
	for name := range k.known {
		if rank(name) > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return byRank(&upload{name: a}, &upload{name: b}) })
	var put []string
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := k.clearing()
		defer cancel()
		if errors.Is(k.ours(ctx), usage.Err) { // another has put all in place, with these
			return
		}
		for _, name := range slices.Backward(put) {
			err = errors.Join(err, k.delete(ctx, k.within(name)))
		}
	}()
	for _, name := range names {
		text, _, err := k.small(ctx, place(name))
		if err != nil {
			return err
		}
		if _, ok := held[name]; ok {
			if is, _, err := k.small(ctx, name); err != nil || string(is) != string(text) {
				return errors.Join(err, k.appeared(name))
			}
			continue // a run that was killed has put it there
		}
		put = append(put, name)
		err = k.putText(ctx, name, text, true)
		if status := (*statusError)(nil); errors.As(err, &status) && taken(status) {
			put = put[:len(put)-1]
			if is, _, err := k.small(ctx, name); err != nil || string(is) != string(text) {
				return errors.Join(err, k.appeared(name))
			}
			continue // another has put it there that does the same at this time
		}
		if err != nil {
			return err
		}
	}
	return nil
}
