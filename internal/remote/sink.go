package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// sending parts at a time, and how long what is left is cleared away after an error.
const (
	sendingAtATime = 8
	clearing       = 30 * time.Second
)

// Dest returns the place to write to at an address; ok is false where the text is no
// address but a path on this machine.
func Dest(address string) (s files.Sink, ok bool, err error) {
	scheme, _, ok := strings.Cut(address, "://")
	if !ok || strings.ContainsAny(scheme, `/\`) {
		return nil, false, nil
	}
	if strings.EqualFold(scheme, "hf") {
		s, err := hubDest(address)
		return s, err == nil, err
	}
	if stores[strings.ToLower(scheme)] == nil {
		return nil, false, usage.Errorf("%s: is no place to write to: name a path, or an address (%s)", unsignedText(address), strings.Join(writable(), ", "))
	}
	b, key, err := parseStore(address)
	if err != nil {
		return nil, false, err
	}
	return &storeSink{b, key}, true, nil
}

func writable() (list []string) {
	list = []string{"hf://"}
	for _, name := range sorted(stores) {
		list = append(list, name+"://")
	}
	return list
}

// Apart refuses a destination that is the source, contains it, or lies in it, where both
// are addresses of stores.
func Apart(source, dest string) error {
	from, fromKey, err1 := parseStored(source)
	to, toKey, err2 := parseStored(dest)
	if err1 != nil || err2 != nil || from != to {
		return nil
	}
	switch inside := func(a, b string) bool { return b == "" || a == b || strings.HasPrefix(a, b+"/") }; {
	case inside(toKey, fromKey):
		return usage.Errorf("%s lies in the source %s: name another destination", dest, source)
	case inside(fromKey, toKey):
		return usage.Errorf("%s holds the source %s: name another destination", dest, source)
	}
	return nil
}

// parseStored is the bucket and the key of an address.
func parseStored(address string) (bucket, key string, err error) {
	scheme, _, ok := strings.Cut(address, "://")
	if !ok || stores[strings.ToLower(scheme)] == nil {
		return "", "", errors.New("no address of a store")
	}
	b, key, err := parseStore(address)
	if err != nil {
		return "", "", err
	}
	return b.address, key, nil
}

// storeSink is a folder of a bucket, or a file, as a destination.
type storeSink struct {
	*bucket
	key string
}

func (s *storeSink) String() string { return s.named(s.key) }

// Begin is [storeSink.BeginOutput] where nothing is known of what will be written.
func (s *storeSink) Begin(ctx context.Context, replace bool) (files.Output, error) {
	return s.BeginOutput(ctx, stage.Output{Dest: s.String(), Folder: stage.IsFolder(s.String()), Force: replace})
}

// CheckOutput refuses a destination that would overwrite something.
func (s *storeSink) CheckOutput(ctx context.Context, o stage.Output) error {
	_, err := s.held(ctx, o)
	return err
}

// BeginOutput prepares an output.
func (s *storeSink) BeginOutput(ctx context.Context, o stage.Output) (files.Output, error) {
	held, err := s.held(ctx, o)
	if err != nil {
		return nil, err
	}
	return s.output(ctx, o, held), nil
}

// output is one that was checked.
func (s *storeSink) output(ctx context.Context, o stage.Output, held map[string]object) *storeOutput {
	out := &storeOutput{storeSink: s, of: o, old: held, over: len(held) > 0, run: ctx, places: make(chan struct{}, sendingAtATime)}
	out.ctx, out.cancel = context.WithCancel(ctx)
	out.changed = sync.NewCond(&out.mu)
	out.unhook = context.AfterFunc(out.ctx, func() { // whoever waits for room hears of it
		out.mu.Lock()
		defer out.mu.Unlock()
		out.changed.Broadcast()
	})
	return out
}

// there lists what is at the destination.
func (s *storeSink) there(ctx context.Context, folder bool) (map[string]object, error) {
	if folder {
		return s.objects(ctx, s.key, true)
	}
	o, ok, err := s.object(ctx, s.key)
	if err != nil || !ok {
		return nil, err
	}
	return map[string]object{path.Base(s.key): o}, nil
}

// held is what is there and may be replaced.
func (s *storeSink) held(ctx context.Context, o stage.Output) (map[string]object, error) {
	held, err := s.there(ctx, o.Folder)
	if err != nil {
		return nil, err
	}
	return held, s.mayReplace(ctx, o, held)
}

// mayReplace refuses what is there unless it is an older output, and that is replaced.
func (s *storeSink) mayReplace(ctx context.Context, o stage.Output, held map[string]object) (err error) {
	_, begun := held[planName]
	switch {
	case len(held) == 0 || begun && o.Keeps:
		return nil
	case !o.Force && begun && o.Folder:
		return usage.Existsf("%s holds what is finished of an output: go on with `Resume`, give `Force` to begin anew, or name another destination", o.Dest)
	case !o.Force:
		return usage.Existsf("%s exists: name another destination, or give `Force` to replace it", o.Dest)
	case !o.Folder:
		return nil
	}
	var index []byte
	if one, ok := held[pipelineIndex]; ok {
		if index, _, err = s.text(ctx, s.reading(one)); err != nil {
			return s.explain(err, "read")
		}
	}
	return o.CheckNames(o.Dest, slices.DeleteFunc(sorted(held), isRecord), index)
}

const pipelineIndex = "model_index.json"

// key is that of a file of the output.
func (o *storeOutput) keyOf(name string) string {
	if o.of.Folder {
		return strings.TrimPrefix(o.key+"/"+name, "/")
	}
	return path.Join(path.Dir(o.key), name)
}

// storeOutput is an output on its way to a store. Parts go there as soon as they are whole,
// which no reader sees; Commit makes objects of them.
type storeOutput struct {
	*storeSink
	of     stage.Output
	old    map[string]object
	over   bool            // something was there when the output began
	run    context.Context // of those who write
	ctx    context.Context // ends with the first error too
	cancel context.CancelFunc
	unhook func() bool

	staging
	creating sync.Mutex
	tried    bool           // an upload in parts was begun
	whole    bool           // the store knows none
	places   chan struct{}  // for what is sent at a time
	going    sync.WaitGroup // what is sent, or waits for it
	mu       sync.Mutex
	changed  *sync.Cond
	waiting  int // parts that are whole and not with the store
	err      error
	files    []*upload
	notes    []string
	placed   bool
}

// Create adds a file.
func (o *storeOutput) Create(name string, size int64) (io.WriterAt, error) {
	u, err := o.create(name, size)
	if err == nil {
		o.staging.add(size)
	}
	return u, err
}

func (o *storeOutput) create(name string, size int64) (*upload, error) {
	o.creating.Lock()
	defer o.creating.Unlock()
	u := newUpload(o, name, size, partOf(size))
	if u.inParts() && !o.tried { // who may not write hears it before the work
		o.tried = true
		err := u.start()
		status := (*statusError)(nil)
		if o.whole = errors.As(err, &status) && o.lacksParts(status); err != nil && !o.whole {
			return nil, fmt.Errorf("%s: %w", o.named(o.keyOf(name)), err)
		}
	}
	if o.whole {
		u = newUpload(o, name, size, max(size, 1))
	}
	o.files = append(o.files, u)
	watch.Of(o.run).Expect(size)
	return u, nil
}

// leave takes an upload from those that are given up at the end.
func (o *storeOutput) leave(u *upload) {
	o.creating.Lock()
	defer o.creating.Unlock()
	o.files = slices.DeleteFunc(o.files, func(one *upload) bool { return one == u })
}

// start begins an upload in parts, once.
func (u *upload) start() error {
	u.begin.Do(func() {
		key := u.to.keyOf(u.name)
		r, ok := u.to.begin(key)
		if !ok {
			return
		}
		ctx, cancel := outlasting(u.to.ctx, clearing/6)
		defer cancel()
		text, _, err := u.to.text(ctx, r)
		if err == nil {
			u.id, err = u.to.begun(text)
		}
		u.began, u.err = err == nil, u.to.explain(err, "write")
	})
	return u.err
}

// write keeps some bytes of a part, and sends it once all are there. It waits while much
// does, so that the disk of this machine holds little.
func (o *storeOutput) write(u *upload, i int, p []byte, at int64) error {
	place, err := o.place(u, i)
	if err != nil {
		return err
	}
	if _, err := o.file.WriteAt(p, place+at); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if u.parts[i].left -= int64(len(p)); u.parts[i].left == 0 && u.inParts() {
		o.waiting++
		u.going.Add(1)
		o.going.Go(func() {
			defer u.going.Done()
			o.send(u, i)
		})
	}
	for o.waiting > mostWaiting && o.err == nil && o.ctx.Err() == nil {
		o.changed.Wait()
	}
	if o.err != nil {
		return o.err
	}
	return o.ctx.Err()
}

// place is where a part is kept.
func (o *storeOutput) place(u *upload, i int) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	p := &u.parts[i]
	if p.place < 0 {
		place, err := o.take(u.step)
		if err != nil {
			return 0, err
		}
		p.place = place
	}
	return p.place, nil
}

// send sends a part. The first that fails ends the output.
func (o *storeOutput) send(u *upload, i int) {
	o.places <- struct{}{}
	tag, err := "", o.ctx.Err()
	if err == nil {
		tag, err = o.sendPart(u, i)
	}
	<-o.places
	if err == nil {
		err = u.sent(i, tag)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting--
	if err == nil {
		watch.Of(o.run).Uploaded(u.length(i))
	}
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("%s: %w", o.named(o.keyOf(u.name)), o.explain(err, "write"))
		o.cancel()
	}
	o.changed.Broadcast()
}

func (o *storeOutput) sendPart(u *upload, i int) (tag string, err error) {
	if err := u.start(); err != nil {
		return "", err
	}
	b, err := o.body(u, i)
	if err != nil {
		return "", err
	}
	_, h, err := o.text(o.ctx, o.part(o.keyOf(u.name), u.id, i+1, b))
	return h.Get("ETag"), err
}

// body is a part with the sum that the store compares it with.
func (o *storeOutput) body(u *upload, i int) (*body, error) {
	h, n := o.digest(), u.length(i)
	if n == 0 {
		return &body{ReaderAt: strings.NewReader(""), sum: h.Sum(nil)}, nil
	}
	part := o.at(u.parts[i].place, n)
	if _, err := io.Copy(h, io.NewSectionReader(part, 0, n)); err != nil {
		return nil, err
	}
	return &body{part, n, h.Sum(nil)}, nil
}

// Commit makes objects of what was written: weights first, and what leads to them last.
func (o *storeOutput) Commit(ctx context.Context) (err error) {
	watch.Of(ctx).Enter(watch.Uploading)
	o.going.Wait()
	if o.err != nil {
		return o.err
	}
	if err := o.allWritten(); err != nil {
		return err
	}
	if err := o.unchanged(ctx); err != nil {
		return err
	}
	watch.Of(ctx).Enter(watch.Placing)
	var done []*upload
	if err = o.hideOld(ctx); err == nil {
		done, err = o.placeAll(ctx)
	}
	if err != nil {
		return errors.Join(err, o.takeBack(done))
	}
	o.placed = true
	o.removeOld(ctx)
	keys := map[string]bool{}
	for _, u := range o.files {
		if u.inParts() {
			keys[o.keyOf(u.name)] = true
		}
	}
	o.giveUpForsaken(ctx, keys, forsaken)
	return nil
}

// allWritten makes sure that every byte came.
func (o *storeOutput) allWritten() error {
	for _, u := range o.files {
		if err := u.written(); err != nil {
			return err
		}
	}
	return nil
}

// unchanged makes sure that what is there is what was there when the run began.
func (o *storeOutput) unchanged(ctx context.Context) error {
	now, err := o.there(ctx, o.of.Folder)
	if err != nil {
		return err
	}
	for name, one := range now {
		if was, ok := o.old[name]; !ok || was != one {
			return o.appeared(name)
		}
	}
	for name := range o.old { // what somebody removed need not be replaced
		if _, ok := now[name]; !ok {
			delete(o.old, name)
		}
	}
	return nil
}

func (o *storeOutput) appeared(name string) error {
	return usage.Existsf("%s has come to be there, or become another, while this ran: it stays as it is, and nothing of this run is kept: name another destination", o.named(o.keyOf(name)))
}

// hideOld removes what leads readers to the output that is replaced, so that none takes
// some of its files and some of the new ones.
func (o *storeOutput) hideOld(ctx context.Context) error {
	for _, name := range sorted(o.old) {
		if rank(name) == 0 || !o.of.Folder {
			continue
		}
		if err := o.delete(ctx, o.keyOf(name)); err != nil {
			return err
		}
		delete(o.old, name)
		o.notes = []string{} // see takeBack: something is gone
	}
	return nil
}

func (o *storeSink) delete(ctx context.Context, key string) error {
	_, _, err := o.text(ctx, o.remove(key))
	if status := (*statusError)(nil); errors.As(err, &status) && status.status == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.named(key), o.explain(err, "delete"))
	}
	return nil
}

// placeAll makes the objects, those of one rank at a time, and returns those that are
// there or may be.
func (o *storeOutput) placeAll(ctx context.Context) (done []*upload, err error) {
	slices.SortFunc(o.files, byRank)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for rest := o.files; len(rest) > 0 && err == nil; {
		n := 1
		for n < len(rest) && rank(rest[n].name) == rank(rest[0].name) {
			n++
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		for _, u := range rest[:n] {
			o.places <- struct{}{}
			all.Go(func() {
				defer func() { <-o.places }()
				_, replaced := o.old[u.name]
				theirs, e := o.makeObject(ctx, u, replaced)
				mu.Lock()
				defer mu.Unlock()
				if !theirs {
					done = append(done, u)
				}
				if e != nil && err == nil {
					err = e
					cancel()
				}
			})
		}
		all.Wait()
		rest = rest[n:]
	}
	return done, err
}

// makeObject makes one object, in place of another or where nothing is; theirs says that
// nothing of this run can be there.
func (o *storeOutput) makeObject(ctx context.Context, u *upload, replaced bool) (theirs bool, err error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	ctx, cancel := outlasting(ctx, clearing)
	defer cancel()
	key := o.keyOf(u.name)
	ask := func(fresh bool) error {
		if !u.inParts() {
			b, err := o.body(u, 0)
			if err == nil {
				_, _, err = o.text(ctx, o.put(key, b, fresh))
			}
			return err
		}
		tags := make([]string, len(u.parts))
		for i := range u.parts {
			tags[i] = u.parts[i].tag
		}
		return o.join(ctx, o.complete(key, u.id, tags, fresh))
	}
	err = ask(!replaced)
	status := (*statusError)(nil)
	if errors.As(err, &status) && status.status == http.StatusNotImplemented { // a store without conditions
		err = ask(false)
	}
	if err == nil {
		if !u.inParts() {
			watch.Of(ctx).Uploaded(u.size)
		}
		u.began = false
		return false, nil
	}
	if !errors.As(err, &status) {
		return false, err // nobody knows what became of it
	}
	if taken(status) && !replaced {
		return true, o.appeared(u.name)
	}
	if status.code == "NoSuchUpload" { // an answer was lost
		if one, ok, e := o.object(ctx, key); e == nil && ok && one.size == u.size {
			return false, nil
		}
	}
	return true, fmt.Errorf("%s: %w", o.named(key), o.explain(err, "write"))
}

// taken reports whether an answer says that an object of the key is there.
func taken(e *statusError) bool {
	return e.status == http.StatusPreconditionFailed || e.status == http.StatusConflict && (e.code == "BlobAlreadyExists" || e.code == "ConditionalRequestConflict")
}

// join puts parts together. Stores answer that it goes well before they know that it does.
func (o *storeOutput) join(ctx context.Context, r request) error {
	for a := o.attempts(ctx); ; {
		text, _, err := o.text(ctx, r)
		if err != nil {
			return err
		}
		code, message := reason(text, http.Header{})
		if code == "" {
			return nil
		}
		if err := a.again(&statusError{address: unsignedText(r.address), status: http.StatusInternalServerError, code: code, message: message}); err != nil {
			return err
		}
	}
}

// takeBack removes what a Commit that failed has made.
func (o *storeOutput) takeBack(done []*upload) (err error) {
	ctx, cancel := o.clearing()
	defer cancel()
	slices.SortFunc(done, func(a, b *upload) int { return byRank(b, a) })
	gone := o.notes != nil
	for _, u := range done {
		_, replaced := o.old[u.name]
		gone = gone || replaced
		if e := o.delete(ctx, o.keyOf(u.name)); e != nil {
			err = errors.Join(err, fmt.Errorf("could not be taken back: %w", e))
		}
	}
	if gone {
		err = errors.Join(err, fmt.Errorf("%s: the older output is no longer whole, and nothing is in its place", o.of.Dest))
	}
	return err
}

// outlasting is a context that goes on for a while after another has ended, for a request
// whose answer says what will have to be cleared away: a store finishes what it was asked
// for, even after the connection has gone.
func outlasting(of context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(of))
	stop := context.AfterFunc(of, func() { time.AfterFunc(d, cancel) })
	return ctx, func() { stop(); cancel() }
}

// clearing is a context for clearing away, which an interrupt does not end.
func (o *storeOutput) clearing() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(o.run), clearing)
}

// removeOld removes what is left of the output that was replaced.
func (o *storeOutput) removeOld(ctx context.Context) {
	for _, u := range o.files {
		delete(o.old, u.name)
	}
	o.notes = nil
	for _, name := range sorted(o.old) {
		if err := o.delete(ctx, o.keyOf(name)); err != nil {
			o.notes = append(o.notes, fmt.Sprintf("what %s has replaced could not be removed whole: %v", o.of.Dest, err))
		}
	}
}

// Notes are what a user should know of the output.
func (o *storeOutput) Notes() []string { return o.notes }

// Abort gives up all that is not whole.
func (o *storeOutput) Abort() (err error) {
	o.cancel()
	o.unhook()
	o.going.Wait()
	ctx, cancel := o.clearing()
	defer cancel()
	for _, u := range o.files {
		if e := o.giveUp(ctx, u); err == nil {
			err = e
		}
	}
	_, e := o.close()
	return errors.Join(err, e)
}

// giveUp ends an upload in parts of which no object was made.
func (o *storeOutput) giveUp(ctx context.Context, u *upload) error {
	r, ok := o.abort(o.keyOf(u.name), u.id)
	if !u.began || !ok || o.placed {
		return nil
	}
	_, _, err := o.text(ctx, r)
	if status := (*statusError)(nil); err == nil || errors.As(err, &status) && status.status == http.StatusNotFound {
		return nil // or it was whole, and the answer was lost
	}
	return fmt.Errorf("an unfinished upload of %s stays with the store: %w", o.named(o.keyOf(u.name)), o.explain(err, "write"))
}
