package remote_test

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/internal/storetest"
)

// uploadsLeft are those that a test leaves with a store, of a run to out.
func uploadsLeft(s *storetest.Store) {
	const shard = "model-00001-of-00002.safetensors"
	hour := func(n int) time.Time { return time.Now().Add(time.Duration(-n) * time.Hour) }
	s.Forsake("out/"+shard, hour(100))
	s.Forsake("out/"+shard, hour(25))
	s.Forsake("out/"+shard, hour(1))           // another run may be at it
	s.Forsake("out/another.bin", hour(100))    // no file of ours
	s.Forsake("out/sub/"+shard, hour(100))     // likewise
	s.Forsake("out-other/"+shard, hour(100))   // of another output
	s.Forsake("a/ b+c%20=é&/"+shard, hour(99)) // whose key is to be decoded, and nothing else
}

// TestForsaken: uploads that killed runs have left of an output's files are given up once
// that is in place, and nobody else's are.
func TestForsaken(t *testing.T) {
	for _, kind := range []string{"s3", "gs"} {
		for _, page := range []int{0, 1, 2} {
			s := smallStore(t)
			s.Page = page
			uploadsLeft(s)
			all := map[string][]byte{"model-00001-of-00002.safetensors": noise(few * 2), "model-00002-of-00002.safetensors": noise(few * 2), "config.json": []byte("{}")}
			out, err := begin(t.Context(), dest(t, kind+"://models/out"), false, slices.Sorted(maps.Keys(all))...)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(write(t, out, all), out.Commit(t.Context()), out.Abort()); err != nil {
				t.Fatal(err)
			}
			want := []string{"a/ b+c%20=é&/model-00001-of-00002.safetensors", "out-other/model-00001-of-00002.safetensors", "out/another.bin", "out/model-00001-of-00002.safetensors", "out/sub/model-00001-of-00002.safetensors"}
			if got := s.Forsaken(); !slices.Equal(got, want) {
				t.Errorf("%s, pages of %d: left are %q, want %q", kind, page, got, want)
			}
		}
	}
}

// TestForsakenOfParts: of an output in parts nobody can be at a file any more once it is in
// place: also what was begun just now is given up.
func TestForsakenOfParts(t *testing.T) {
	for _, kind := range []string{"s3", "gs"} {
		s := smallStore(t)
		p := planOf("a")
		w := mustKeep(t, kind+"://models/out", p)
		if err := errors.Join(finishFiles(t.Context(), w, allOf(p)...), w.Abort()); err != nil {
			t.Fatal(err)
		}
		uploadsLeft(s)
		w = mustKeep(t, kind+"://models/out", p)
		if n := len(s.Forsaken()); n != 7 {
			t.Errorf("%s: %d of 7 uploads are left before all is in place", kind, n)
		}
		if err := errors.Join(w.Commit(t.Context()), w.Abort()); err != nil {
			t.Fatal(err)
		}
		want := []string{"a/ b+c%20=é&/model-00001-of-00002.safetensors", "out-other/model-00001-of-00002.safetensors", "out/another.bin", "out/sub/model-00001-of-00002.safetensors"}
		if got := s.Forsaken(); !slices.Equal(got, want) {
			t.Errorf("%s: left are %q, want %q", kind, got, want)
		}
	}
}

// TestForsakenOfAFile: the destination may be one file, and one whose uploads may not be
// listed is written as well.
func TestForsakenOfAFile(t *testing.T) {
	s := smallStore(t)
	for _, refused := range []bool{false, true} {
		for _, key := range []string{"m/one.safetensors", "m/one.safetensors.more", "one.safetensors"} {
			s.Forsake(key, time.Now().Add(-100*time.Hour))
		}
		if refused {
			s.Fail(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || !r.URL.Query().Has("uploads") {
					return false
				}
				w.WriteHeader(http.StatusForbidden)
				return true
			})
		}
		out, err := dest(t, "s3://models/m/one.safetensors").Begin(t.Context(), refused)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(write(t, out, map[string][]byte{"one.safetensors": noise(few * 3)}), out.Commit(t.Context()), out.Abort()); err != nil {
			t.Fatal(err)
		}
		if got, want := len(s.Forsaken()), map[bool]int{false: 2, true: 5}[refused]; got != want {
			t.Errorf("refused %v: %q are left, want %d", refused, s.Forsaken(), want)
		}
	}
}
