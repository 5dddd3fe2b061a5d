package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tensorpress/tensorpress/internal/remote"
	"github.com/tensorpress/tensorpress/internal/shards"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/storetest"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// few bytes are a part in these tests, which begin many stores.
const few = 64 << 10

var small = map[string][]byte{
	"model-00001-of-00002.safetensors": noise(few * 5 / 2), "model-00002-of-00002.safetensors": noise(few * 3 / 2),
	"model.safetensors.index.json": []byte("{}"), "config.json": []byte("{}"), "tokenizer/words.txt": []byte("words"), "empty.txt": {},
}

func smallStore(t *testing.T) *storetest.Store {
	s := store(t)
	s.LeastPart = few
	remote.SmallParts(few)
	return s
}

// planOf is that of the model of these tests.
func planOf(settings string) *shards.Plan {
	p := &shards.Plan{Format: shards.Format, Version: "1", Source: "source", Settings: settings, Stems: map[string]string{"": "model"}}
	for _, name := range []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json", "empty.txt", "model.safetensors.index.json", "tokenizer/words.txt"} {
		f := shards.File{Name: name, Bytes: int64(len(small[name]))}
		if strings.HasSuffix(name, ".safetensors") {
			p.Shards = append(p.Shards, f)
		} else {
			p.Others = append(p.Others, f)
		}
	}
	return p
}

// keep begins or goes on as a process by itself does.
func keep(t *testing.T, address string, p *shards.Plan, force bool) (shards.Work, error) {
	t.Helper()
	to, err := shards.Of(dest(t, address))
	if err != nil {
		t.Fatal(err)
	}
	return to.Keep(t.Context(), stage.Output{Dest: address, Folder: true, Force: force, Contents: p.Contents()}, p, false)
}

// mustKeep is keep where it has to go well.
func mustKeep(t *testing.T, address string, p *shards.Plan) shards.Work {
	t.Helper()
	w, err := keep(t, address, p, false)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// finishFiles writes files of the model and finishes them.
func finishFiles(ctx context.Context, w shards.Work, names ...string) error {
	for _, name := range names {
		d, err := w.Begin(name, int64(len(small[name])))
		if err != nil {
			return err
		}
		const step = few/4 + 1
		for at := 0; at < len(small[name]) && err == nil; at += step {
			_, err = d.WriteAt(small[name][at:min(len(small[name]), at+step)], int64(at))
		}
		if err == nil {
			_, err = d.Finish(ctx)
		}
		if err != nil {
			return errors.Join(err, d.Discard())
		}
	}
	return nil
}

func namesOf(list []shards.File) (names []string) {
	for _, f := range list {
		names = append(names, f.Name)
	}
	return names
}

// allOf are the names of a plan.
func allOf(p *shards.Plan) []string { return append(namesOf(p.Others), namesOf(p.Shards)...) }

// holds compares what a reader sees with the model.
func holds(t *testing.T, s *storetest.Store, folder string) {
	t.Helper()
	seen := 0
	for key, got := range s.Objects() {
		name, ok := strings.CutPrefix(key, folder+"/")
		if !ok {
			continue
		}
		if want, ok := small[name]; !ok || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, want %d", key, len(got), len(want))
		}
		seen++
	}
	if seen != len(small) {
		t.Errorf("%d files, want %d", seen, len(small))
	}
	if n := s.Unfinished(); n > 0 {
		t.Errorf("%d uploads are left", n)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestKeep: processes that share nothing but a store write an output's files in any order,
// some twice and at the same time, and one of them is killed; what leads readers to the
// weights comes last, and nothing else is left.
func TestKeep(t *testing.T) {
	for _, kind := range kinds {
		for _, lacks := range []string{"nothing", "conditions", "parts"} {
			if lacks == "parts" && kind != "gs" || lacks == "conditions" && kind != "s3" { // no other lacks them
				continue
			}
			t.Run(kind+" lacks "+lacks, func(t *testing.T) {
				s := smallStore(t)
				s.NoConditions, s.NoParts = lacks == "conditions", lacks == "parts"
				address, p := kind+"://models/out", planOf("a")
				killed := mustKeep(t, address, p)
				d, err := killed.Begin(p.Shards[1].Name, p.Shards[1].Bytes)
				if err == nil {
					_, err = d.WriteAt(small[p.Shards[1].Name][:few], 0)
				}
				if err != nil {
					t.Fatal(err)
				}
				var all sync.WaitGroup
				for _, names := range [][]string{namesOf(p.Shards), namesOf(p.Shards), {p.Shards[1].Name, p.Shards[0].Name}, namesOf(p.Others)} {
					all.Go(func() {
						w, err := keep(t, address, p, false)
						if err == nil {
							err = errors.Join(finishFiles(t.Context(), w, names...), w.Abort())
						}
						if err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				if err := errors.Join(d.Discard(), killed.Abort()); err != nil { // so that the test can tell what the others leave
					t.Error(err)
				}
				for key := range s.Objects() {
					if strings.HasSuffix(key, ".json") && !strings.HasPrefix(key, "out/.tensorpress/") {
						t.Errorf("%s is seen before all is there", key)
					}
				}
				w := mustKeep(t, address, p)
				before := s.Requests()
				done, notes, err := w.Done(t.Context(), allOf(p), shards.Checking{AtOnce: 4})
				if err != nil || len(done) != len(small) || len(notes) > 0 {
					t.Errorf("%d are done, %v, %v", len(done), notes, err)
				}
				if n := s.Requests() - before; n > 50 {
					t.Errorf("%d requests to check %d files", n, len(small))
				}
				was := len(s.Log())
				if err := errors.Join(w.Commit(t.Context()), w.Abort()); err != nil {
					t.Fatal(err)
				}
				log := s.Log()[was:]
				want := []string{"PUT out/model.safetensors.index.json", "PUT out/config.json", "DELETE out/.tensorpress/plan.json"}
				if len(log) < 3 || fmt.Sprint(log[:3]) != fmt.Sprint(want) {
					t.Errorf("the end is %q, want first %q", log, want)
				}
				holds(t, s, "out")
				to, _ := shards.Of(dest(t, address))
				if _, _, err := to.Kept(t.Context()); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a plan is left: %v", err)
				}
				if whole, err := to.Whole(t.Context()); err != nil || !whole {
					t.Errorf("whole: %v, %v", whole, err)
				}
				if _, err := keep(t, address, p, false); !errors.Is(err, fs.ErrExist) {
					t.Errorf("a part of what is whole: %v", err)
				}
			})
		}
	}
}

// TestKeepChecks: what is finished counts by what the store states of it, by its bytes
// where that is another, and not by its name.
func TestKeepChecks(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := smallStore(t)
			address, p := kind+"://models/out", planOf("a")
			w := mustKeep(t, address, p)
			defer w.Abort()
			if err := finishFiles(t.Context(), w, allOf(p)...); err != nil {
				t.Fatal(err)
			}
			name := p.Shards[0].Name
			other := bytes.Clone(small[name])
			other[len(other)/2]++
			for _, c := range []struct {
				what string
				do   func()
				done bool
				note string
			}{
				{"put again", func() { s.Put("out/"+name, small[name]) }, true, ""},
				{"other bytes", func() { s.Put("out/"+name, other) }, false, "has other bytes than when it was finished"},
				{"cut", func() { s.Put("out/"+name, other[1:]) }, false, "bytes, and had"},
				{"gone", func() { s.Remove("out/" + name) }, false, "was finished and is gone"},
				{"no record", func() { s.Remove("out/.tensorpress/records/" + stage.RecordOf(name)) }, false, ""},
				{"another's record", func() { s.Put("out/.tensorpress/records/"+stage.RecordOf(name), []byte("{}")) }, false, "its record is another's"},
			} {
				c.do()
				done, notes, err := w.Done(t.Context(), allOf(p), shards.Checking{AtOnce: 2})
				_, ok := done[name]
				if err != nil || ok != c.done || (c.note == "") != (len(notes) == 0) || len(done) < len(small)-1 || !strings.Contains(fmt.Sprint(notes), c.note) {
					t.Errorf("%s: done %v, %v, %v", c.what, ok, notes, err)
				}
				if again := s.Requests(); c.done { // the record has the new state
					if _, _, err := w.Done(t.Context(), []string{name}, shards.Checking{}); err != nil || s.Requests()-again > 3 {
						t.Errorf("%s: %d requests once it was compared, %v", c.what, s.Requests()-again, err)
					}
				}
				if err := finishFiles(t.Context(), w, name); err != nil {
					t.Fatalf("%s: made again: %v", c.what, err)
				}
			}
			f, err := w.Open(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if got := make([]byte, 100); f.Size() != p.Shards[0].Bytes {
				t.Errorf("reads %d bytes", f.Size())
			} else if _, err := f.ReadAt(got, 10); err != nil || !bytes.Equal(got, small[name][10:110]) {
				t.Errorf("reads other bytes: %v", err)
			}
			if err := w.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			holds(t, s, "out")
		})
	}
}

// TestKeepRefuses: another plan, a stranger's files and a stranger's config stay as they are.
func TestKeepRefuses(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := smallStore(t)
			address := kind + "://models/out"
			if err := mustKeep(t, address, planOf("a")).Abort(); err != nil {
				t.Fatal(err)
			}
			p := planOf("b") // nothing of the other is finished
			w := mustKeep(t, address, p)
			defer w.Abort()
			if err := finishFiles(t.Context(), w, p.Shards[0].Name); err != nil {
				t.Fatal(err)
			}
			if _, err := keep(t, address, planOf("a"), false); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "with other settings") {
				t.Errorf("another plan: %v", err)
			}
			if _, err := begin(t.Context(), dest(t, address), false, "model.safetensors"); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "go on with") {
				t.Errorf("a run without it: %v", err)
			}
			s.Put("out/notes.txt", nil)
			if _, err := keep(t, address, p, false); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "notes.txt") {
				t.Errorf("a stranger's file: %v", err)
			}
			s.Remove("out/notes.txt")
			for _, text := range []string{"", "{", `{"config.json": 5}`} {
				s.Put("out/"+remote.ReplacedName, []byte(text))
				if _, err := keep(t, address, p, false); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), address+": its replaced.json is none of tensorpress's") {
					t.Errorf("a record of another's: %v", err)
				}
			}
			s.Remove("out/" + remote.ReplacedName)
			if err := finishFiles(t.Context(), w, allOf(p)...); err != nil {
				t.Fatal(err)
			}
			s.Put("out/config.json", []byte("theirs"))
			if err := w.Commit(t.Context()); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "config.json") {
				t.Errorf("a stranger's config: %v", err)
			}
			if all := s.Objects(); string(all["out/config.json"]) != "theirs" || all["out/model.safetensors.index.json"] != nil {
				t.Error("the stranger's config did not stay, or the index did")
			}
			s.Remove("out/config.json")
			if err := w.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			holds(t, s, "out")
			if err := finishFiles(t.Context(), w, p.Shards[0].Name); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "no longer that of this run") {
				t.Errorf("a part after the end: %v", err)
			}
			if kind != "az" { // which forgets parts by itself
				holds(t, s, "out")
			}
		})
	}
}

// TestKeepMayNotWrite: a store that refuses to take anything says so.
func TestKeepMayNotWrite(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := smallStore(t)
			s.Fail(func(_ int, rw http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet && r.Method != http.MethodHead {
					rw.WriteHeader(http.StatusForbidden)
					return true
				}
				return false
			})
			if _, err := keep(t, kind+"://models/out", planOf("a"), false); err == nil || errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "may not write here") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestKeepBegunByTwo: of two processes that replace an older output at the same time one
// looks before the other has its plan there, and is killed as it begins; the other goes on.
func TestKeepBegunByTwo(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			for after := 1; ; after++ {
				s := smallStore(t)
				address, p := kind+"://models/out", planOf("a")
				for _, name := range []string{"config.json", "model-00003-of-00003.safetensors"} {
					s.Put("out/"+name, []byte("old"))
				}
				first, err := keep(t, address, p, true)
				if err != nil {
					t.Fatal(err)
				}
				plan := s.Objects()["out/.tensorpress/plan.json"]
				s.Remove("out/.tensorpress/plan.json") // the first is about to put it there
				begun, killed := 0, false
				s.Fail(func(_ int, rw http.ResponseWriter, _ *http.Request) bool {
					if begun++; begun > after {
						killed = true
						rw.WriteHeader(http.StatusForbidden)
					}
					return killed
				})
				if w, err := keep(t, address, p, true); err == nil {
					w.Abort()
				}
				s.Fail(nil)
				s.Put("out/.tensorpress/plan.json", plan)
				w, err := keep(t, address, p, true)
				if err != nil {
					t.Fatalf("after %d requests: %v", after, err)
				}
				if err := errors.Join(first.Abort(), finishFiles(t.Context(), w, allOf(p)...), w.Commit(t.Context()), w.Abort()); err != nil {
					t.Fatalf("after %d requests: %v", after, err)
				}
				holds(t, s, "out")
				if !killed || t.Failed() {
					return
				}
			}
		})
	}
}

// TestKeepEndedByTwo: two processes put all in place at the same time, and both find that
// it is there.
func TestKeepEndedByTwo(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := smallStore(t)
			address, p := kind+"://models/out", planOf("a")
			w := mustKeep(t, address, p)
			if err := finishFiles(t.Context(), w, allOf(p)...); err != nil {
				t.Fatal(err)
			}
			s.Fail(func(_ int, _ http.ResponseWriter, r *http.Request) bool { // as it puts the config, the other has
				if all := s.Objects(); r.Method != http.MethodGet && r.Method != http.MethodHead && all["out/model.safetensors.index.json"] != nil {
					s.Fail(nil)
					s.Put("out/config.json", small["config.json"])
				}
				return false
			})
			if err := errors.Join(w.Commit(t.Context()), w.Abort()); err != nil {
				t.Fatal(err)
			}
			holds(t, s, "out")
		})
	}
}

// TestKeepReplaces: with force an older output makes room, what leads to it first, and
// without it stays.
func TestKeepReplaces(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := smallStore(t)
			address, p := kind+"://models/out", planOf("a")
			for _, name := range []string{"config.json", p.Shards[0].Name, "model-00003-of-00003.safetensors"} {
				s.Put("out/"+name, []byte("old"))
			}
			if _, err := keep(t, address, p, false); !errors.Is(err, fs.ErrExist) {
				t.Errorf("without force: %v", err)
			}
			if got := s.Objects(); string(got["out/config.json"]) != "old" || len(got) != 3 {
				t.Errorf("without force: %v", got)
			}
			w, err := keep(t, address, p, true)
			if err != nil {
				t.Fatal(err)
			}
			if s.Objects()["out/config.json"] != nil {
				t.Error("the old config leads to new weights")
			}
			if err := finishFiles(t.Context(), w, namesOf(p.Shards)...); err != nil {
				t.Fatal(err)
			}
			if err := w.Abort(); err != nil {
				t.Fatal(err)
			}
			w = mustKeep(t, address, p) // who goes on need not say so again
			if err := errors.Join(finishFiles(t.Context(), w, namesOf(p.Others)...), w.Commit(t.Context()), w.Abort()); err != nil {
				t.Fatal(err)
			}
			holds(t, s, "out")
		})
	}
}

// TestKeepKilledAtTheEnd: a run that is killed at any request of the end is made good by
// another.
func TestKeepKilledAtTheEnd(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			step := 1
			if testing.Short() {
				step = 5
			}
			for after := 0; ; after += step {
				s := smallStore(t)
				address, p := kind+"://models/out", planOf("a")
				w := mustKeep(t, address, p)
				if err := finishFiles(t.Context(), w, allOf(p)...); err != nil {
					t.Fatal(err)
				}
				begun, killed := s.Requests(), false
				s.Fail(func(n int, rw http.ResponseWriter, _ *http.Request) bool {
					if n-begun >= after {
						killed = true
						rw.WriteHeader(http.StatusForbidden)
					}
					return killed
				})
				w.Commit(t.Context())
				s.Fail(nil)
				w.Abort()
				to, _ := shards.Of(dest(t, address))
				_, _, err := to.Kept(t.Context())
				if errors.Is(err, fs.ErrNotExist) {
					if whole, err := to.Whole(t.Context()); err != nil || !whole {
						t.Fatalf("after %d requests: whole %v, %v", after, whole, err)
					}
				} else {
					w := mustKeep(t, address, p)
					done, notes, err := w.Done(t.Context(), allOf(p), shards.Checking{AtOnce: 1})
					if err != nil || len(done) != len(small) {
						t.Fatalf("after %d requests: %d are done, %v, %v", after, len(done), notes, err)
					}
					if err := errors.Join(w.Commit(t.Context()), w.Abort()); err != nil {
						t.Fatalf("after %d requests: %v", after, err)
					}
				}
				holds(t, s, "out")
				if t.Failed() {
					t.Fatalf("after %d requests", after)
				}
				if !killed {
					if after < 10 {
						t.Errorf("the end takes %d requests", after)
					}
					return
				}
			}
		})
	}
}

// TestKeepFails: whichever request of a run fails, it ends with an error and gives its
// uploads up, what it has finished stays, and another run does the rest.
func TestKeepFails(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			step := 5
			if testing.Short() {
				step = 11
			}
			for after := 0; ; after += step {
				s := smallStore(t)
				address, p := kind+"://models/out", planOf("a")
				failed := false
				s.Fail(func(n int, rw http.ResponseWriter, r *http.Request) bool {
					if n == after || failed && r.Method != http.MethodDelete {
						failed = true
						rw.WriteHeader(http.StatusForbidden)
						return true
					}
					return false
				})
				w, err := keep(t, address, p, false)
				if err == nil {
					err = errors.Join(finishFiles(t.Context(), w, allOf(p)...), w.Abort())
				}
				s.Fail(nil)
				if failed == (err == nil) {
					t.Fatalf("request %d failed: %v, and the run ends with %v", after, failed, err)
				}
				if n := s.Unfinished(); n > 0 && kind != "az" {
					t.Fatalf("request %d: %d uploads are left", after, n)
				}
				w = mustKeep(t, address, p)
				done, notes, err := w.Done(t.Context(), allOf(p), shards.Checking{AtOnce: 1})
				if err != nil || len(notes) > 0 {
					t.Fatalf("request %d: %v, %v", after, notes, err)
				}
				rest := slices.DeleteFunc(allOf(p), func(name string) bool { _, ok := done[name]; return ok })
				if err := errors.Join(finishFiles(t.Context(), w, rest...), w.Commit(t.Context()), w.Abort()); err != nil {
					t.Fatalf("request %d: %v", after, err)
				}
				if holds(t, s, "out"); t.Failed() {
					t.Fatalf("request %d", after)
				}
				if !failed {
					if after < 30 {
						t.Errorf("a run takes %d requests", after)
					}
					return
				}
			}
		})
	}
}
