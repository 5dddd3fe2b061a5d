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
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/hubtest"
	"github.com/tensorpress/tensorpress/internal/remote"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
)

const memory = 64 << 20

// noise is a content that differs everywhere.
func noise(n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(n)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// start is a hub that the environment names, with a folder of its own for tools.
func start(t *testing.T) *hubtest.Hub {
	t.Helper()
	h := hubtest.New()
	t.Cleanup(h.Close)
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", h.Endpoint())
	return h
}

func open(t *testing.T, address string) files.Source {
	t.Helper()
	s, ok, err := remote.Open(address, memory)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", address, ok, err)
	}
	return s
}

// read returns a file of a source.
func read(t *testing.T, s files.Source, name string) ([]byte, error) {
	t.Helper()
	f, err := s.Open(t.Context(), name)
	if err != nil {
		return nil, err
	}
	if c, ok := f.(io.Closer); ok {
		defer c.Close()
	}
	return io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
}

// TestHub: a repository's files are those of the commit that its revision named first,
// large and small, in however many parts the hub lists them; and the store that large
// files are with never sees the token, which could be anyone's.
func TestHub(t *testing.T) {
	h := start(t)
	t.Setenv("HF_TOKEN", "hf_secret")
	h.Token, h.Page = "hf_secret", 3
	all := map[string][]byte{
		"config.json": []byte(`{}`), "model.safetensors": noise(300_000), "a/b/c.txt": []byte("text"), "a/large.bin": noise(70_000),
		"odd name+%20.json": []byte("[]"), "empty": nil, "x/1": []byte("1"), "x/2": []byte("2"),
	}
	h.Add("org/model", all)
	h.Restrict("org/model", true, true)
	for _, address := range []string{"hf://org/model", "hf://org/model@main", "hf://org/model@refs/pr/1", "hf://org/model@refs%2Fpr%2F1"} {
		s := open(t, address)
		names, err := s.List(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		slices.Sort(names)
		for name, want := range all {
			if got, err := read(t, s, name); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %s: %d bytes of %d, %v", address, name, len(got), len(want), err)
			}
		}
		if len(names) != len(all) {
			t.Errorf("%s: lists %q", address, names)
		}
		if _, err := s.Open(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file that is not there: %v", err)
		}
	}
	for _, r := range h.Requests() {
		if toStore := strings.HasSuffix(h.Store(), r.Host); toStore != (r.Authorization == "") {
			t.Errorf("%s %s%s was sent %q", r.Method, r.Host, r.Path, r.Authorization)
		}
	}

	s := open(t, "hf://org/model")
	if _, err := s.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Add("org/model", map[string][]byte{"model.safetensors": noise(10)})
	f, err := s.Open(t.Context(), "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 0); err == nil {
		t.Error("another commit's file was read")
	}
}

// TestHubRefuses: who may not read a repository learns what to do, and no message holds
// the token.
func TestHubRefuses(t *testing.T) {
	h := start(t)
	h.Token = "hf_right"
	for _, name := range []string{"org/open", "org/gated", "org/private"} {
		h.Add(name, map[string][]byte{"model.safetensors": noise(5000)})
	}
	h.Restrict("org/gated", false, true)
	h.Restrict("org/private", true, false)
	tests := []struct {
		address, token, want string
	}{
		{"hf://org/gated", "", "is gated: ask for access at " + h.Endpoint() + "/org/gated, and set HF_TOKEN"},
		{"hf://org/gated", "hf_wrong", "the token that is set may not read it"},
		{"hf://org/private", "", "no such repository, or it is private: set HF_TOKEN"},
		{"hf://org/none", "hf_right", "no such repository, or it is private: the token that is set may not read it"},
		{"hf://org/open@v9", "", "no revision v9"},
	}
	for _, tt := range tests {
		t.Setenv("HF_TOKEN", tt.token)
		_, err := read(t, open(t, tt.address), "model.safetensors")
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, usage.ErrSource) || strings.Contains(err.Error(), "hf_") {
			t.Errorf("%s with %q: %v", tt.address, tt.token, err)
		}
	}
	t.Setenv("HF_TOKEN", "")
	if err := os.WriteFile(filepath.Join(os.Getenv("HF_HOME"), "token"), []byte("hf_right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, open(t, "hf://org/gated"), "model.safetensors"); err != nil || len(got) != 5000 {
		t.Errorf("with the token of a file: %d bytes, %v", len(got), err)
	}
}

// TestHubCache: what was downloaded before is not fetched again, and without a network
// it is all there is.
func TestHubCache(t *testing.T) {
	h := start(t)
	body := noise(5000)
	commit := h.Add("org/model", map[string][]byte{"model.safetensors": body, "config.json": []byte("{}")})
	folder := filepath.Join(os.Getenv("HF_HOME"), "hub", "models--org--model")
	put := func(name string, text []byte) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o777), os.WriteFile(filepath.Join(folder, name), text, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HF_HUB_OFFLINE", "1")
	if _, err := open(t, "hf://org/model").List(t.Context()); err == nil || !strings.Contains(err.Error(), "HF_HUB_OFFLINE") {
		t.Errorf("nothing there: %v", err)
	}
	put("snapshots/"+commit+"/model.safetensors", body)
	put("refs/main", []byte(commit))
	for _, offline := range []string{"", "1"} {
		t.Setenv("HF_HUB_OFFLINE", offline)
		if got, err := read(t, open(t, "hf://org/model"), "model.safetensors"); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%v", err)
		}
	}
	for _, r := range h.Requests() {
		if strings.Contains(r.Path, "model.safetensors") {
			t.Errorf("asked for %s", r.Path)
		}
	}
	put("snapshots/"+commit+"/model.safetensors", body[:100]) // half of a download
	t.Setenv("HF_HUB_OFFLINE", "")
	if got, err := read(t, open(t, "hf://org/model"), "model.safetensors"); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%v", err)
	}
}

// TestTries: a server that is busy, breaks off or signs for a short time gives the same
// bytes in the end, and each byte once.
func TestTries(t *testing.T) {
	h := start(t)
	body := noise(1 << 20)
	h.Add("org/model", map[string][]byte{"model.safetensors": body})
	h.SignedFor = 3
	var mu sync.Mutex
	failed := map[string]int{}
	h.Fail = func(n int, w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		key := r.URL.Path + r.Header.Get("Range")
		if failed[key]++; failed[key] > 2 {
			return false
		}
		status := []int{http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusBadGateway}[n%3]
		w.WriteHeader(status)
		return true
	}
	h.Break = func(n int, r *http.Request) int64 {
		if n%3 == 0 && strings.HasSuffix(h.Store(), r.Host) {
			return 50_000
		}
		return 0
	}
	s := open(t, "hf://org/model")
	remote.Hurry(s)
	f, err := s.Open(t.Context(), "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(body))
	var parts sync.WaitGroup
	for off := 0; off < len(body); off += 1 << 17 {
		parts.Go(func() {
			if n, err := f.ReadAt(got[off:off+1<<17], int64(off)); n != 1<<17 || err != nil {
				t.Errorf("at %d: %d, %v", off, n, err)
			}
		})
	}
	parts.Wait()
	if !bytes.Equal(got, body) {
		t.Error("other bytes")
	}
	var sent int64
	for _, r := range h.Requests() {
		if strings.HasSuffix(h.Store(), r.Host) {
			sent += r.Bytes
		}
	}
	if most := int64(len(body)) * 11 / 10; sent > most {
		t.Errorf("%d bytes were sent for %d", sent, len(body))
	}
}

// TestGivesUp: where nothing helps the run ends with one line that says what was tried.
func TestGivesUp(t *testing.T) {
	h := start(t)
	h.Add("org/model", map[string][]byte{"model.safetensors": noise(5000)})
	h.Fail = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	s := open(t, "hf://org/model")
	waited := remote.Hurry(s)
	_, err := s.List(t.Context())
	if err == nil || !strings.Contains(err.Error(), "gave up after") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if w := waited(); w < 2*time.Second || w > time.Minute {
		t.Errorf("waited %v", w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open(t, "hf://org/model").List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
}

// TestEndlessLists: a list of files that leads round, or on and on, is given up.
func TestEndlessLists(t *testing.T) {
	h := start(t)
	commit := h.Add("org/model", map[string][]byte{"config.json": []byte("{}")})
	s := store(t)
	for _, most := range []int{2, 1 << 40} { // pages before the first comes again
		var asked atomic.Int64
		next := func() int64 { return asked.Add(1) % int64(most) }
		h.Fail = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/tree/") {
				return false
			}
			w.Header().Set("Link", fmt.Sprintf(`<%s/api/models/org/model/tree/%s?cursor=%d>; rel="next"`, h.Endpoint(), commit, next()))
			io.WriteString(w, "[]")
			return true
		}
		s.Fail(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprintf(w, "<ListBucketResult><NextContinuationToken>%d</NextContinuationToken><IsTruncated>true</IsTruncated></ListBucketResult>", next())
			return true
		})
		for _, address := range []string{"hf://org/model", "s3://models/m"} {
			asked.Store(0)
			if _, err := open(t, address).List(t.Context()); err == nil || !strings.Contains(err.Error(), "does not end") {
				t.Errorf("%s: %v", address, err)
			}
			if n := asked.Load(); n > 10_001 || most == 2 && n > 4 {
				t.Errorf("%s: asked %d times", address, n)
			}
		}
	}
}

// TestHubSays: where the hub says in words why it refuses, a user reads them.
func TestHubSays(t *testing.T) {
	h := start(t)
	t.Setenv("HF_TOKEN", "hf_secret")
	for status, want := range map[int]string{
		http.StatusUnauthorized: "401 Unauthorized: Invalid credentials in Authorization header: the hub does not take the token that is set: set another one, or none",
		http.StatusForbidden:    "403 Forbidden: Invalid credentials in Authorization header: the token that is set may not read it",
		http.StatusBadRequest:   "400 Bad Request: Invalid credentials in Authorization header",
	} {
		h.Fail = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("X-Error-Message", "Invalid credentials in Authorization header")
			w.WriteHeader(status)
			io.WriteString(w, `{"error": "Invalid credentials in Authorization header"}`)
			return true
		}
		_, err := open(t, "hf://org/model").List(t.Context())
		if err == nil || !strings.HasSuffix(err.Error(), want) || strings.Contains(err.Error(), "hf_secret") {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// web is a server of files as most are.
func web(t *testing.T, wrap func(http.Handler) http.Handler) (address, folder string) {
	t.Helper()
	folder = t.TempDir()
	s := httptest.NewServer(wrap(http.FileServer(http.Dir(folder))))
	t.Cleanup(s.Close)
	return s.URL, folder
}

func put(t *testing.T, folder, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), text, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestWeb: a file of a web server and the shards of an index are read; a file that is
// replaced meanwhile is an error of the source, and a server without ranges one that says
// to download it.
func TestWeb(t *testing.T) {
	same := func(h http.Handler) http.Handler { return h }
	address, folder := web(t, same)
	body := noise(100_000)
	put(t, folder, "model.safetensors", body)
	put(t, folder, "m.safetensors.index.json", []byte(`{"weight_map": {"a": "model.safetensors", "b": "../x"}}`))
	put(t, folder, "config.json", []byte(`{}`))

	s := open(t, address+"/m.safetensors.index.json")
	whole, name := s.(interface{ Whole() (files.Source, string) }).Whole()
	names, err := whole.List(t.Context())
	if want := []string{"config.json", "m.safetensors.index.json", "model.safetensors"}; err != nil || !slices.Equal(names, want) || name != want[1] {
		t.Errorf("%q, %v", names, err)
	}
	f, err := whole.Open(t.Context(), "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(body))
	if n, err := f.ReadAt(got, 0); n != len(body) || err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d, %v", n, err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(folder, "model.safetensors"), later, later); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got[:10], 5); !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("a file that changed: %v", err)
	}
	put(t, folder, "model.safetensors", body[:50])
	if _, err := f.ReadAt(got[:10], 5000); !errors.Is(err, usage.ErrSource) {
		t.Errorf("a file that shrank: %v", err)
	}
	if _, err := read(t, open(t, address+"/none.safetensors"), "none.safetensors"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}

	address, folder = web(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			h.ServeHTTP(w, r)
		})
	})
	put(t, folder, "model.safetensors", body)
	whole, _ = open(t, address+"/model.safetensors").(interface{ Whole() (files.Source, string) }).Whole()
	if f, err = whole.Open(t.Context(), "model.safetensors"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got[:10], 5); err == nil || !strings.Contains(err.Error(), "download") {
		t.Errorf("a server without ranges: %v", err)
	}

	for _, status := range []int{http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented} {
		address, folder = web(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					w.WriteHeader(status)
					return
				}
				h.ServeHTTP(w, r)
			})
		})
		put(t, folder, "model.safetensors", body)
		if got, err := read(t, open(t, address+"/model.safetensors"), "model.safetensors"); err != nil || !bytes.Equal(got, body) {
			t.Errorf("a server that answers %d to HEAD: %v", status, err)
		}
	}
}

// TestWebSecrets: who gives access in an address finds it in no message.
func TestWebSecrets(t *testing.T) {
	address, folder := web(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			if (user != "me" || password != "pass") && r.URL.Query().Get("key") != "signature" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	put(t, folder, "model.safetensors", noise(50))
	at := strings.TrimPrefix(address, "http://")
	for _, tt := range []struct {
		address string
		ok      bool
	}{
		{"http://me:pass@" + at + "/model.safetensors", true}, {"http://" + at + "/model.safetensors?key=signature", true},
		{"http://me:wrong@" + at + "/model.safetensors", false}, {"http://" + at + "/model.safetensors?key=wrong", false}, {address + "/model.safetensors", false},
	} {
		s := open(t, tt.address)
		whole, _ := s.(interface{ Whole() (files.Source, string) }).Whole()
		_, err := whole.Open(t.Context(), "model.safetensors")
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.address, err)
		}
		for _, text := range []string{s.String(), errorText(err)} {
			if strings.Contains(text, "pass") || strings.Contains(text, "wrong") || strings.Contains(text, "signature") {
				t.Errorf("%s is in %q", tt.address, text)
			}
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestUnknownSecrets: nor does it stand in the error of an address that nobody can read.
func TestUnknownSecrets(t *testing.T) {
	for _, text := range []string{
		"htps://me:SECRET@a/x.safetensors", "https://me:SECRET@more@/x.safetensors", "https://me:S@SECRET@a/folder", "https://me:SEC/SECRET@a/x.safetensors",
		"hf://me:SECRET@a/b/../c", "s3://me:S@SECRET@a/b",
	} {
		_, _, err := remote.Open(text, memory)
		_, _, dest := remote.Dest(text)
		if err == nil || strings.Contains(err.Error(), "SECRET") || strings.Contains(errorText(dest), "SECRET") {
			t.Errorf("%s: %v, %v", text, err, dest)
		}
	}
	if _, _, err := remote.Open("hf://a/b@v1/../c", memory); err == nil || !strings.Contains(err.Error(), "hf://a/b@v1/../c: want") {
		t.Errorf("an address that is not said whole: %v", err)
	}
}

// TestAddresses: what is no address is a path, and an address that nobody can read says
// what one is like.
func TestAddresses(t *testing.T) {
	start(t)
	for _, text := range []string{"model.safetensors", "a/b", "/a/b", `C:\a`, "./hf://x"} {
		if _, ok, err := remote.Open(text, memory); ok || err != nil {
			t.Errorf("%s: %v, %v", text, ok, err)
		}
	}
	for text, want := range map[string]string{
		"ftp://a/b": "unknown kind of address", "hf://": "goes on", "hf://model": "want hf://ORG/NAME", "hf://a/b/../c": "want hf://ORG/NAME", "hf://a/b@": "want hf://ORG/NAME",
		"https://a/folder/": "do not list their folders", "https://": "goes on", "https:///x.safetensors": "no address",
	} {
		if _, ok, err := remote.Open(text, memory); ok || err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, usage.Err) {
			t.Errorf("%s: %v, %v", text, ok, err)
		}
	}
	for text, want := range map[string]string{
		"hf://a/b@v1/c/d.safetensors": "hf://a/b@v1/c/d.safetensors", "https://huggingface.co/a/b": "hf://a/b",
		"https://huggingface.co/a/b/resolve/main/c.safetensors?download=true": "hf://a/b/c.safetensors", "https://huggingface.co/a/b/tree/v1/x": "hf://a/b@v1/x",
		"https://a/b.safetensors?x=1": "https://a/b.safetensors",
	} {
		if s, ok, err := remote.Open(text, memory); !ok || err != nil || s.String() != want {
			t.Errorf("%s: %v, %v, %v", text, s, ok, err)
		}
	}
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("here/model", 0o777); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"org/model": "hf://org/model", "here/model": "", "here/other": "", "org/x.safetensors": "", "org": "", "a/b/c": "", "./a": "", "../a": "", "/a": "",
	} {
		if got, ok := remote.OnHub(text); got != want || ok != (want != "") {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// TestStated: a file that was read whole and is not what the hub states is an error of the
// source at the end of the run, and one that is not read whole is not held against it.
func TestStated(t *testing.T) {
	h := start(t)
	body := noise(9 << 20)
	h.Add("org/model", map[string][]byte{"model.safetensors": body})
	for _, tt := range []struct {
		spoil, whole, ok bool
	}{{false, true, true}, {true, true, false}, {true, false, true}} {
		s := source.Of(t.Context(), open(t, "hf://org/model"))
		f, err := s.Open(s.Join(s.Path, "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		if body[5<<20] ^= 1; !tt.spoil {
			body[5<<20] ^= 1
		}
		from := 0
		if !tt.whole {
			from = 4 << 20
		}
		if _, err := f.Sections.ReadAt(make([]byte, len(body)-from), int64(from)); err != nil {
			t.Fatal(err)
		}
		same, err := s.Unchanged(s.Join(s.Path, "model.safetensors"), f.Info)
		if same != tt.ok || (err == nil) != tt.ok || err != nil && !errors.Is(err, usage.ErrSource) {
			t.Errorf("%+v: %v, %v", tt, same, err)
		}
		if tt.spoil {
			body[5<<20] ^= 1
		}
	}
}
