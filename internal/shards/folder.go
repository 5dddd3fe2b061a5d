package shards

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// folder keeps what is finished in a hidden folder beside the one that it will be.
type folder struct{ files.Dir }

// Kept reads the plan.
func (f folder) Kept(context.Context) (p *Plan, finished []string, err error) {
	text, err := stage.ReadKept(f.String(), PlanName)
	if err != nil {
		return nil, nil, err
	}
	where, err := stage.KeptPath(f.String())
	if err != nil {
		return nil, nil, err
	}
	if p, err = Decode(text, where); err != nil {
		return nil, nil, err
	}
	for _, one := range p.Shards {
		if text, err := stage.ReadKept(f.String(), stage.RecordOf(one.Name)); err == nil && recordOf(text, one.Name, p.ID()) != nil {
			finished = append(finished, one.Name)
		}
	}
	return p, finished, nil
}

// recordOf reads the record of a file by a plan, nil where it is another's.
func recordOf(text []byte, name, plan string) *Record {
	r := &Record{}
	if json.Unmarshal(text, r) != nil || r.Name != name || r.Plan != plan {
		return nil
	}
	return r
}

// Whole looks for weights in the folder.
func (f folder) Whole(context.Context) (bool, error) {
	if stage.Forget(f.String()) {
		return true, nil
	}
	if work, ok := stage.Unplanned(f.String()); ok {
		return false, usage.Errorf("%s has no plan of what belongs in it: run the parts again, or delete it", work)
	}
	found := false
	err := fs.WalkDir(os.DirFS(f.String()), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case filepath.Ext(name) == ".safetensors" && e.Type().IsRegular():
			found = true
			return fs.SkipAll
		case e.IsDir() && strings.Count(name, "/") > 0: // a pipeline has folders, and these have none
			return fs.SkipDir
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return found, err
}

// Keep opens the hidden folder.
func (f folder) Keep(_ context.Context, o stage.Output, p *Plan, alone bool) (Work, error) {
	k, err := stage.OpenKept(o, alone)
	if err != nil {
		return nil, err
	}
	w := &Folder{Kept: k, plan: p, id: p.ID(), dest: o.Dest}
	if err := w.begin(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	k.Sweep()
	return w, nil
}

// Folder is [Work] in a folder.
type Folder struct {
	*stage.Kept
	plan *Plan
	id   string
	dest string
}

// begin compares the plan with the one that is kept, or keeps it.
func (w *Folder) begin() error {
	kept, err := w.kept()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case kept.ID() == w.id:
		return nil
	default:
		any, err := w.finishedAny(kept)
		if err != nil {
			return err
		}
		if any {
			return w.plan.Differs(kept, w.Folder(), w.dest)
		}
		if err := w.Clear(); err != nil {
			return err
		}
	}
	return w.WriteRecord(PlanName, w.plan.Encode())
}

func (w *Folder) kept() (*Plan, error) {
	text, err := w.ReadRecord(PlanName)
	if err != nil {
		return nil, err
	}
	return Decode(text, w.Folder())
}

// finishedAny reports whether a shard is finished.
func (w *Folder) finishedAny(p *Plan) (bool, error) {
	names, err := w.Records()
	return slices.ContainsFunc(p.Shards, func(f File) bool { return slices.Contains(names, stage.RecordOf(f.Name)) }), err
}

// Done reads the records, and the files of which there are some.
func (w *Folder) Done(ctx context.Context, names []string, c Checking) (map[string]Record, []Wrong, error) {
	records := make([]*Record, len(names))
	wrong := make([]string, len(names))
	errs := make([]error, len(names))
	var count sync.Mutex
	counted := func(n int64) {
		if c.Count != nil {
			count.Lock()
			defer count.Unlock()
			c.Count(n)
		}
	}
	next := make(chan int)
	var all sync.WaitGroup
	for range min(max(c.AtOnce, 1), len(names)) {
		all.Go(func() {
			for i := range next {
				records[i], wrong[i], errs[i] = w.done(ctx, names[i], counted)
			}
		})
	}
	for i := range names {
		next <- i
	}
	close(next)
	all.Wait()
	done := map[string]Record{}
	for i, r := range records {
		if r != nil {
			done[names[i]] = *r
		}
	}
	return done, Wrongs(names, wrong), errors.Join(errs...)
}

// done is the record of a file, nil where it is not finished; wrong says what is there
// instead.
func (w *Folder) done(ctx context.Context, name string, count func(n int64)) (r *Record, wrong string, err error) {
	text, err := w.ReadRecord(stage.RecordOf(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	if r = recordOf(text, name, w.id); r == nil {
		return nil, fmt.Sprintf("%s: its record is another's", name), nil
	}
	info, err := os.Lstat(w.Path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, name + " was finished and is gone", nil
	case err != nil:
		return nil, "", err
	case !info.Mode().IsRegular():
		return nil, name + " was finished and is no file any more", nil
	case info.Size() != r.Bytes:
		return nil, fmt.Sprintf("%s has %d bytes, and had %d when it was finished", name, info.Size(), r.Bytes), nil
	}
	f, err := os.Open(w.Path(name))
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	sum, err := Sum(ctx, f, r.Bytes, count)
	if err == nil && sum != r.SHA256 {
		return nil, name + " has other bytes than when it was finished", nil
	}
	return r, "", err
}

// Sum is the sha256 of a file's bytes. Count hears of those that were read.
func Sum(ctx context.Context, f io.ReaderAt, size int64, count func(n int64)) (string, error) {
	const step = 1 << 20
	buffer := make([]byte, min(size, step))
	h := sha256.New()
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		some := buffer[:min(size-off, step)]
		if n, err := f.ReadAt(some, off); n < len(some) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		h.Write(some)
		off += int64(len(some))
		if count != nil {
			watch.Of(ctx).Read(len(some))
			count(int64(len(some)))
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Begin begins a file among the records.
func (w *Folder) Begin(name string, size int64) (Draft, error) {
	d, err := w.Draft(name)
	if err != nil {
		return nil, err
	}
	return &draft{Draft: d, work: w, name: name, size: size}, nil
}

// draft is a file that is being written.
type draft struct {
	*stage.Draft
	work *Folder
	name string
	size int64
}

// Unwrap is the file itself, which the system may copy to.
func (d *draft) Unwrap() *os.File { return d.File }

// Finish hashes the file while the system brings it to the disk.
func (d *draft) Finish(ctx context.Context) (Record, error) {
	synced := make(chan error, 1)
	go func() { synced <- d.File.Sync() }()
	sum, err := Sum(ctx, d.File, d.size, nil)
	if err == nil {
		select {
		case err = <-synced:
		case <-ctx.Done(): // a sync cannot be interrupted
			err = ctx.Err()
		}
	}
	if err != nil {
		return Record{}, err
	}
	if kept, err := d.work.kept(); errors.Is(err, fs.ErrNotExist) || err == nil && kept.ID() != d.work.id {
		return Record{}, usage.Errorf("%s is no longer that of this run: another has put %s in place, or begun it with other settings", d.work.Folder(), d.work.dest)
	} else if err != nil {
		return Record{}, err
	}
	if err := d.Put(ctx); err != nil {
		return Record{}, err
	}
	r := Record{File: File{d.name, d.size}, SHA256: sum, Plan: d.work.id}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return Record{}, err
	}
	return r, d.work.WriteRecord(stage.RecordOf(d.name), append(text, '\n'))
}

// Open opens a finished file.
func (w *Folder) Open(_ context.Context, name string) (files.File, error) {
	f, err := os.Open(w.Path(name))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return opened{f, info.Size()}, nil
}

type opened struct {
	*os.File
	size int64
}

func (o opened) Size() int64 { return o.size }

// Create is not the way to write what is kept.
func (w *Folder) Create(name string, _ int64) (io.WriterAt, error) {
	return nil, fmt.Errorf("%s: is written as a draft", name)
}

// Commit refuses files that are no part of the output, and puts the folder in place.
func (w *Folder) Commit(ctx context.Context) error {
	strays, err := w.Strays(w.plan.Contents().Files)
	if err != nil {
		return err
	}
	if len(strays) > 0 {
		return usage.Errorf("%s holds %s, which is no part of %s: move it away", w.Folder(), strays[0], w.dest)
	}
	return w.Kept.Commit(ctx)
}
