package remote_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tensorpress/tensorpress/internal/remote"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// TestCountsTries: each request that had to be made again is counted, by what the server
// did to it, and each request too.
func TestCountsTries(t *testing.T) {
	h := start(t)
	body := noise(1 << 20)
	h.Add("org/model", map[string][]byte{"model.safetensors": body})
	var mu sync.Mutex
	answered := map[int]int64{}
	var cut int64
	h.Fail = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		status := []int{0, http.StatusTooManyRequests, http.StatusBadGateway, 0, http.StatusRequestTimeout, 0, 0}[n%7]
		if status == 0 {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		answered[status]++
		w.WriteHeader(status)
		return true
	}
	h.Break = func(n int, r *http.Request) int64 {
		if n%7 != 5 || !strings.HasSuffix(h.Store(), r.Host) {
			return 0
		}
		mu.Lock()
		defer mu.Unlock()
		cut++
		return 50_000
	}
	run := &watch.Run{}
	ctx := watch.With(t.Context(), run)
	s := open(t, "hf://org/model")
	remote.Hurry(s)
	f, err := s.Open(ctx, "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1<<17)
	for off := 0; off < len(body); off += len(got) {
		if _, err := f.ReadAt(got, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	c := run.Counts()
	for why, want := range map[watch.Reason]int64{
		watch.Busy: answered[http.StatusTooManyRequests], watch.Failed: answered[http.StatusBadGateway],
		watch.Timeout: answered[http.StatusRequestTimeout], watch.Cut: cut,
	} {
		if c.Retries[why] != want || want == 0 {
			t.Errorf("%v: %d, want %d", why, c.Retries[why], want)
		}
	}
	if want := int64(len(h.Requests())); c.Requests != want {
		t.Errorf("%d requests, want %d", c.Requests, want)
	}
}

// TestCountsRefused: a server that is not there is a reason of its own.
func TestCountsRefused(t *testing.T) {
	h := start(t)
	h.Add("org/model", map[string][]byte{"config.json": []byte("{}")})
	s := open(t, "hf://org/model")
	remote.Hurry(s)
	h.Close()
	run := &watch.Run{}
	if _, err := s.List(watch.With(t.Context(), run)); err == nil {
		t.Fatal("nobody answered")
	}
	if c := run.Counts(); c.Retries[watch.Refused] == 0 || c.Retries[watch.Refused] != c.Tries() {
		t.Errorf("%+v", c)
	}
}

// TestCountsUploads: what goes to a store is expected as soon as its files are known, and
// done once it is there, though some of it is sent again; of a run that fails, what is there.
func TestCountsUploads(t *testing.T) {
	s := store(t)
	var all int64
	for _, data := range model {
		all += int64(len(data))
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			run := &watch.Run{}
			ctx := watch.With(t.Context(), run)
			to := dest(t, kind+"://models/"+kind)
			remote.HurryStore(to)
			out, err := begin(ctx, to, false)
			if err != nil {
				t.Fatal(err)
			}
			s.Fail(func(n int, w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut && n%3 == 0 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				}
				return false
			})
			if err := write(t, out, model); err != nil {
				t.Fatal(err)
			}
			if _, total := run.Work(); total != all {
				t.Errorf("%d bytes are expected, want %d", total, all)
			}
			if err := errors.Join(out.Commit(ctx), out.Abort()); err != nil {
				t.Fatal(err)
			}
			c := run.Counts()
			if c.Uploaded != all || c.Done != all || c.Retries[watch.Failed] == 0 || c.Phase != watch.Placing {
				t.Errorf("%+v, want %d", c, all)
			}
			s.Fail(nil)
		})
	}
	run := &watch.Run{}
	ctx := watch.With(t.Context(), run)
	to := dest(t, "s3://models/fails")
	remote.HurryStore(to)
	out, err := begin(ctx, to, false)
	if err != nil {
		t.Fatal(err)
	}
	s.Fail(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.RawQuery, "partNumber") {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	err = write(t, out, model)
	if err == nil {
		err = out.Commit(ctx)
	}
	if c := run.Counts(); err == nil || c.Uploaded >= int64(part) {
		t.Errorf("%v, and %d bytes are there", err, c.Uploaded)
	}
	if err := out.Abort(); err != nil {
		t.Error(err)
	}
}
