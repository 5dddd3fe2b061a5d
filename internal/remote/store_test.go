package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/remote"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/storetest"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// kinds are the beginnings of addresses in all stores.
var kinds = []string{"s3", "gs", "az"}

// part is the size of parts in these tests.
const part = 1 << 20

// store is one that the environment names, with a folder of its own for what is staged.
func store(t *testing.T) *storetest.Store {
	t.Helper()
	s := storetest.New("models")
	s.LeastPart = part
	remote.SmallParts(part)
	t.Cleanup(s.Close)
	for name, value := range s.Environment() {
		t.Setenv(name, value)
	}
	t.Setenv("TMPDIR", t.TempDir())
	return s
}

func dest(t *testing.T, address string) files.Sink {
	t.Helper()
	s, ok, err := remote.Dest(address)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", address, ok, err)
	}
	return s
}

// TestStores: of every kind of store the same files are read, whole and in parts, however
// many parts its list has, and whatever their names need in an address.
func TestStores(t *testing.T) {
	s := store(t)
	s.Page = 2
	all := map[string][]byte{"config.json": []byte("{}"), "model.safetensors": noise(300_000), "a/b c+d%20=é.json": []byte("[]"), "a/&.txt": []byte("x"), "empty": {}}
	for name, data := range all {
		s.Put("folder/m/"+name, data)
	}
	s.Put("folder/m/", nil)        // a mark of a folder
	s.Put("folder/more", noise(3)) // another name with the same beginning
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			from := open(t, kind+"://models/folder/m")
			names, err := from.List(t.Context())
			if err != nil || len(names) != len(all) {
				t.Fatalf("lists %q, %v", names, err)
			}
			for name, want := range all {
				if got, err := read(t, from, name); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
			}
			f, err := from.Open(t.Context(), "model.safetensors")
			if err != nil {
				t.Fatal(err)
			}
			some := make([]byte, 1000)
			if _, err := f.ReadAt(some, 123_456); err != nil || !bytes.Equal(some, all["model.safetensors"][123_456:124_456]) {
				t.Errorf("a range: %v", err)
			}
			one := open(t, kind+"://models/folder/m/model.safetensors")
			if names, err := one.List(t.Context()); err != nil || !slices.Equal(names, []string{"model.safetensors"}) {
				t.Errorf("a file lists %q, %v", names, err)
			}
			s.Put("folder/m/model.safetensors", noise(300_001))
			if _, err := f.ReadAt(some, 0); !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "changed") {
				t.Errorf("another content: %v", err)
			}
			s.Put("folder/m/model.safetensors", all["model.safetensors"])
		})
	}
}

// write fills an output as a run does: files are made first, and their bytes come in no
// order, from several goroutines.
func write(t *testing.T, out files.Output, all map[string][]byte) error {
	t.Helper()
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	to := map[string]io.WriterAt{}
	for _, name := range names {
		f, err := out.Create(name, int64(len(all[name])))
		if err != nil {
			return err
		}
		to[name] = f
	}
	var failed atomic.Pointer[error]
	for _, name := range names {
		var wait sync.WaitGroup
		const step = part/16 + 7
		data := all[name]
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm((len(data) + step - 1) / step) {
			wait.Go(func() {
				if _, err := to[name].WriteAt(data[i*step:min(len(data), (i+1)*step)], int64(i*step)); err != nil {
					failed.Store(&err)
				}
			})
		}
		wait.Wait()
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// begin begins an output of files of those names.
func begin(ctx context.Context, to files.Sink, force bool, names ...string) (files.Output, error) {
	return to.(interface {
		BeginOutput(context.Context, stage.Output) (files.Output, error)
	}).BeginOutput(ctx, stage.Output{Dest: to.String(), Folder: true, Force: force, Contents: stage.Contents{Files: names, Stems: map[string]string{"": "model"}}})
}

var model = map[string][]byte{
	"model-00001-of-00002.safetensors": noise(part * 5 / 2), "model-00002-of-00002.safetensors": noise(part * 3 / 2),
	"model.safetensors.index.json": []byte("{}"), "config.json": []byte("{}"), "tokenizer/words.txt": []byte("words"), "empty.txt": {},
}

// TestStoreOutput: what is written to any store is there after Commit and not before,
// byte for byte, the weights before what leads to them, and the disk of this machine held
// a few parts of it.
func TestStoreOutput(t *testing.T) {
	s := store(t)
	for _, kind := range kinds {
		for _, conditions := range []bool{true, false} {
			t.Run(fmt.Sprint(kind, conditions), func(t *testing.T) {
				s.NoConditions = !conditions
				before := len(s.Log())
				to := dest(t, kind+"://models/out/"+fmt.Sprint(kind, conditions))
				out, err := begin(t.Context(), to, false)
				if err != nil {
					t.Fatal(err)
				}
				if err := write(t, out, model); err != nil {
					t.Fatal(err)
				}
				if log := s.Log(); len(log) != before {
					t.Errorf("before Commit a reader sees %q", log[before:])
				}
				if err := errors.Join(out.Commit(t.Context()), out.Abort()); err != nil {
					t.Fatal(err)
				}
				log := s.Log()[before:]
				for i, end := range []string{"/model.safetensors.index.json", "/config.json"} {
					if got := log[len(log)-2+i]; !strings.HasSuffix(got, end) {
						t.Errorf("%s came before what it leads to: %q", end, log)
					}
				}
				for name, want := range model {
					if got, ok := s.Objects()["out/"+fmt.Sprint(kind, conditions)+"/"+name]; !ok || !bytes.Equal(got, want) {
						t.Errorf("%s has %d bytes, want %d", name, len(got), len(want))
					}
				}
				if n := s.Unfinished(); n > 0 {
					t.Errorf("%d uploads are left", n)
				}
				if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
					t.Errorf("left behind: %v, %v", left, err)
				}
				if _, err := begin(t.Context(), to, false); !errors.Is(err, fs.ErrExist) || !errors.Is(err, usage.Err) {
					t.Errorf("an output that is there: %v", err)
				}
			})
		}
	}
}

// TestStagedLittle: an output that is written from front to back, as runs write it, takes
// a few parts of this machine's disk, whatever its size and however slow the store is.
func TestStagedLittle(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("looks at an open file of the process")
	}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip(err)
	}
	s := store(t)
	data := make([]byte, part)
	const parts = 48
	out, err := dest(t, "s3://models/big.safetensors").Begin(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Abort()
	f, err := out.Create("big.safetensors", parts*int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var most int64
	for i := range parts {
		if _, err := f.WriteAt(data, int64(i*len(data))); err != nil {
			t.Fatal(err)
		}
		most = max(most, staged(t))
	}
	if err := out.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if most == 0 || most > 26*part {
		t.Errorf("%d bytes of %d were on this machine at a time", most, parts*part)
	}
	if got := len(s.Objects()["big.safetensors"]); got != parts*len(data) {
		t.Errorf("%d bytes arrived", got)
	}
}

// staged is the size of this process's scratch files, which have no names.
func staged(t *testing.T) (all int64) {
	dir := os.Getenv("TMPDIR")
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, dir) {
			if info, err := os.Stat(link); err == nil {
				all += info.Size()
			}
		}
	}
	return all
}

// TestStoreReplaces: with replace an older output goes and nothing else; what is no part
// of one is in the way; and no reader finds a mixture.
func TestStoreReplaces(t *testing.T) {
	s := store(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			at := "old/" + kind + "/"
			old := []string{"config.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00001-of-00002.safetensors"}
			for _, name := range old {
				s.Put(at+name, []byte("old"))
			}
			s.Put(at+"notes.txt", []byte("mine"))
			to := dest(t, kind+"://models/old/"+kind)
			if _, err := begin(t.Context(), to, true); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "notes.txt") {
				t.Fatalf("what is no part of an output: %v", err)
			}
			s.Remove(at + "notes.txt")
			before := len(s.Log())
			out, err := begin(t.Context(), to, true)
			if err == nil {
				err = errors.Join(write(t, out, model), out.Commit(t.Context()), out.Abort())
			}
			if err != nil {
				t.Fatal(err)
			}
			log := s.Log()[before:]
			if !strings.HasPrefix(log[0], "DELETE "+at+"config.json") || !strings.HasPrefix(log[1], "DELETE "+at+"model.safetensors.index.json") {
				t.Errorf("what leads to the old output was there for longer: %q", log)
			}
			n := 0
			for key := range s.Objects() {
				if strings.HasPrefix(key, at) {
					n++
				}
			}
			if n != len(model) {
				t.Errorf("%d files are there, want %d: %q", n, len(model), log)
			}
		})
	}
}

// TestStoreAppears: what comes to the destination while a run goes on stays, and nothing
// of the run does, whether the store knows conditions or not.
func TestStoreAppears(t *testing.T) {
	s := store(t)
	for _, kind := range kinds {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, late), func(t *testing.T) {
				at := fmt.Sprint("appears/", kind, late, "/")
				out, err := begin(t.Context(), dest(t, kind+"://models/"+strings.TrimSuffix(at, "/")), false)
				if err == nil {
					err = write(t, out, model)
				}
				if err != nil {
					t.Fatal(err)
				}
				if !late {
					s.Put(at+"config.json", []byte("theirs"))
				} else { // after the last look, before the object is made
					var once sync.Once
					s.Fail(func(n int, w http.ResponseWriter, r *http.Request) bool {
						if r.Method != http.MethodGet {
							once.Do(func() { s.Put(at+"config.json", []byte("theirs")) })
						}
						return false
					})
				}
				err = out.Commit(t.Context())
				s.Fail(nil)
				if !errors.Is(err, fs.ErrExist) || !errors.Is(err, usage.Err) {
					t.Errorf("got %v", err)
				}
				out.Abort()
				for key, data := range s.Objects() {
					if strings.HasPrefix(key, at) && string(data) != "theirs" {
						t.Errorf("%s of the run is there", key)
					}
				}
				if string(s.Objects()[at+"config.json"]) != "theirs" {
					t.Error("theirs is gone")
				}
			})
		}
	}
}

// TestStoreFails: a store that refuses now and then gets all the same; one that fails for
// good, at whatever request, and a run that is interrupted leave nothing there.
func TestStoreFails(t *testing.T) {
	s := store(t)
	flaky := func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n%7 == 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return n%7 == 3
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s.Fail(flaky)
			defer func() { s.Fail(nil) }()
			to := dest(t, kind+"://models/fails/"+kind)
			waits := remote.HurryStore(to)
			out, err := begin(t.Context(), to, false)
			if err == nil {
				err = errors.Join(write(t, out, model), out.Commit(t.Context()), out.Abort())
			}
			if err != nil || waits() == 0 {
				t.Fatalf("waited %v, %v", waits(), err)
			}
			if got := s.Objects()["fails/"+kind+"/model-00001-of-00002.safetensors"]; !bytes.Equal(got, model["model-00001-of-00002.safetensors"]) {
				t.Error("other bytes")
			}
			for which := range 12 { // requests that write, the last of them those of Commit
				if testing.Short() && which%3 != 1 {
					continue
				}
				at := fmt.Sprintf("fails/%s-%d", kind, which)
				var n atomic.Int64
				s.Fail(func(_ int, w http.ResponseWriter, r *http.Request) bool {
					refuse := r.Method != http.MethodGet && r.Method != http.MethodDelete && n.Add(1) > int64(which)
					if refuse {
						w.WriteHeader(http.StatusForbidden)
					}
					return refuse
				})
				out, err := begin(t.Context(), dest(t, kind+"://models/"+at), false)
				if err != nil {
					t.Fatal(err)
				}
				err = write(t, out, model)
				if err == nil {
					err = out.Commit(t.Context())
				}
				if err == nil || errors.Is(err, fs.ErrExist) {
					if which < 8 {
						t.Errorf("%d: %v", which, err)
					}
				} else if !strings.Contains(err.Error(), "may not write") {
					t.Errorf("%d: %v", which, err)
				}
				if err2 := out.Abort(); err2 != nil {
					t.Errorf("%d: %v", which, err2)
				}
				for key := range s.Objects() {
					if err != nil && strings.HasPrefix(key, at+"/") {
						t.Errorf("%d: %s is left", which, key)
					}
				}
			}
			s.Fail(nil)
			ctx, stop := context.WithCancel(t.Context())
			out, err = begin(ctx, dest(t, kind+"://models/stopped/"+kind), false)
			if err != nil {
				t.Fatal(err)
			}
			f, err := out.Create("model.safetensors", 3*part)
			if err == nil {
				_, err = f.WriteAt(make([]byte, part*3/2), 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			stop()
			if _, err := f.WriteAt(make([]byte, 1), 2*part); !errors.Is(err, context.Canceled) {
				t.Errorf("after an interrupt: %v", err)
			}
			if err := out.Abort(); err != nil {
				t.Error(err)
			}
			if n := s.Unfinished(); n > 0 && kind != "az" { // which has nothing that could be given up
				t.Errorf("%d uploads are left", n)
			}
		})
	}
}

// TestStoreErrors: an error names the place and what to do, and no key nor signature.
func TestStoreErrors(t *testing.T) {
	s := store(t)
	s.Put("m/config.json", []byte("{}"))
	tests := []struct {
		name, address, variable, value, want string
		kind                                 error
	}{
		{"no bucket", "s3://none/m", "", "", "there is no bucket none", usage.ErrSource},
		{"no bucket", "gs://none/m", "", "", "there is no bucket none", usage.ErrSource},
		{"no bucket", "az://none/m", "", "", "there is no bucket none", usage.ErrSource},
		{"nothing there", "s3://models/other", "", "", "file does not exist", fs.ErrNotExist},
		{"a wrong key", "s3://models/m", "AWS_SECRET_ACCESS_KEY", "hidden-word", "does not take the credentials (SignatureDoesNotMatch)", usage.ErrSource},
		{"an unknown key", "s3://models/m", "AWS_ACCESS_KEY_ID", "hidden-word", "does not take the credentials (InvalidAccessKeyId)", usage.ErrSource},
		{"no key", "s3://models/m", "AWS_SECRET_ACCESS_KEY", "", "no credentials were found: set AWS_ACCESS_KEY_ID", usage.ErrSource},
		{"no account", "az://models/m", "AZURE_STORAGE_CONNECTION_STRING", "", "set AZURE_STORAGE_ACCOUNT", usage.Err},
		{"no key", "az://models/m", "AZURE_STORAGE_CONNECTION_STRING", "AccountName=account;BlobEndpoint=" + s.URL() + "/account", "no credentials were found: set AZURE_STORAGE_KEY", usage.ErrSource},
		{"a key that is none", "az://models/m", "AZURE_STORAGE_CONNECTION_STRING", "AccountName=account;AccountKey=hidden-word!", "is not in base64", usage.Err},
		{"no address", "s3://models/m", "AWS_ENDPOINT_URL", "nowhere", "is no address", usage.Err},
		{"an unknown profile", "s3://models/m", "AWS_PROFILE", "other", "other", usage.Err},
		{"no credentials in a file", "gs://models/m", "GOOGLE_APPLICATION_CREDENTIALS", "/none.json", "/none.json", usage.Err},
	}
	for _, tt := range tests {
		t.Run(tt.name+" "+tt.address, func(t *testing.T) {
			if tt.variable != "" {
				t.Setenv(tt.variable, tt.value)
			}
			if tt.variable == "GOOGLE_APPLICATION_CREDENTIALS" {
				t.Setenv("STORAGE_EMULATOR_HOST", "")
			}
			_, err := open(t, tt.address).List(t.Context())
			if err == nil || !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), "hidden-word") || strings.Contains(err.Error(), storetest.Secret) || strings.Contains(err.Error(), "Signature=")) {
				t.Errorf("tells what is secret: %v", err)
			}
		})
	}
	for _, address := range []string{"s3://", "s3://bb/../x", "s3://bb//x", "s3://b/x", "az://-/x", "gs://a b/x"} {
		if _, _, err := remote.Open(address, memory); !errors.Is(err, usage.Err) {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, tt := range []struct {
		source, dest string
		want         string
	}{
		{"s3://bb/m", "s3://bb/m", "lies in"}, {"s3://bb/m", "s3://bb/m/out", "lies in"}, {"s3://bb/m/x.safetensors", "s3://bb/m", "holds"}, {"s3://bb/m", "s3://bb", "holds"},
		{"s3://bb/m", "s3://bb/m2", ""}, {"s3://bb/m", "gs://bb/m", ""}, {"s3://bb/m", "s3://cc/m", ""}, {"m", "s3://bb/m", ""}, {"hf://b/m", "hf://b/m", ""},
	} {
		if err := remote.Apart(tt.source, tt.dest); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s to %s: %v", tt.source, tt.dest, err)
		}
	}
}

// TestSharedSignature: a signature that was shared gives access, and stays out of errors.
func TestSharedSignature(t *testing.T) {
	s := store(t)
	s.Put("m/config.json", []byte("{}"))
	t.Setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=account;BlobEndpoint="+s.URL()+"/account;SharedAccessSignature=sv=2021&sig=shared-word%3D")
	from := open(t, "az://models/m")
	if got, err := read(t, from, "config.json"); err != nil || string(got) != "{}" {
		t.Errorf("got %q, %v", got, err)
	}
	s.Fail(func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(403); return true })
	if _, err := open(t, "az://models/m").List(t.Context()); err == nil || strings.Contains(err.Error(), "shared-word") {
		t.Errorf("got %v", err)
	}
}

// TestNoParts: an emulator of Google's store that knows no uploads in parts gets files
// whole.
func TestNoParts(t *testing.T) {
	s := store(t)
	s.NoParts = true
	out, err := begin(t.Context(), dest(t, "gs://models/m"), false)
	if err == nil {
		err = errors.Join(write(t, out, model), out.Commit(t.Context()), out.Abort())
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range model {
		if got := s.Objects()["m/"+name]; !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, want %d", name, len(got), len(want))
		}
	}
}

// TestHubDest: where the hub's own command is not installed, a line says how to upload.
func TestHubDest(t *testing.T) {
	t.Setenv("PATH", "/none")
	to, _, err := remote.Dest("hf://org/new/part")
	if err != nil {
		t.Fatal(err)
	}
	err = to.(interface{ Ready() error }).Ready()
	if !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "pip install huggingface_hub") || !strings.Contains(err.Error(), "`hf upload org/new PATH part`") {
		t.Errorf("got %v", err)
	}
}
