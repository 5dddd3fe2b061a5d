package remote_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/remote"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// openWeb opens a file of a web server.
func openWeb(t *testing.T, address string) (files.File, error) {
	t.Helper()
	whole, name := open(t, address).(interface{ Whole() (files.Source, string) }).Whole()
	return whole.Open(t.Context(), name)
}

// TestStalled: a connection on which nothing comes any more is given up, and what it has
// brought is not asked for again.
func TestStalled(t *testing.T) {
	defer remote.Quiet(200 * time.Millisecond)()
	body := noise(300_000)
	var n, sent atomic.Int64
	address, folder := web(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				h.ServeHTTP(w, r)
				return
			}
			switch n.Add(1) {
			case 1: // no answer
				<-r.Context().Done()
			case 2: // half of one
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(body)-1, len(body)))
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(body[:100_000])
				sent.Add(100_000)
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			default:
				c := &countedAnswer{w, &sent}
				h.ServeHTTP(c, r)
			}
		})
	})
	put(t, folder, "model.safetensors", body)
	f, err := openWeb(t, address+"/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(body))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%v", err)
	}
	if sent.Load() != int64(len(body)) {
		t.Errorf("%d bytes were sent of %d", sent.Load(), len(body))
	}
}

type countedAnswer struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *countedAnswer) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// TestAnswers: what is no such range of the file is never taken for it. What a server may
// mend is asked for again, all else is one line that says what to do.
func TestAnswers(t *testing.T) {
	body := noise(100_000)
	part := func(w http.ResponseWriter, from, to, size int, text []byte) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(text)
	}
	for _, tt := range []struct {
		name    string
		spoil   func(n int64, w http.ResponseWriter, r *http.Request) bool // reports whether it answered
		want    string                                                     // of the error, "" for none
		changed bool
	}{
		{name: "elsewhere at first", spoil: func(n int64, w http.ResponseWriter, _ *http.Request) bool {
			if n == 1 {
				part(w, 0, 10, len(body), body[:10])
			}
			return n == 1
		}},
		{name: "in small parts", spoil: func(_ int64, w http.ResponseWriter, r *http.Request) bool {
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			to = min(to+1, from+1000)
			part(w, from, to, len(body), body[from:to])
			return true
		}},
		{name: "connections that end", spoil: func(n int64, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Connection", "close")
			if n%2 == 1 {
				panic(http.ErrAbortHandler)
			}
			return false
		}},
		{name: "another size", want: "changed while it was read", changed: true, spoil: func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
			part(w, 5000, 5010, len(body)+1, body[5000:5010])
			return true
		}},
		{name: "another tag", want: "changed while it was read", changed: true, spoil: func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("ETag", `"other"`)
			return false
		}},
		{name: "no ranges", want: "download the file", spoil: func(_ int64, w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}},
		{name: "packed", want: "answers packed by gzip", spoil: func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			z.Write(body[5000:5010])
			z.Close()
			w.Header().Set("Content-Encoding", "gzip")
			part(w, 5000, 5010, len(body), b.Bytes())
			return true
		}},
		{name: "a page to log in", want: "answers 200 where a range", spoil: func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
			io.WriteString(w, "<html>")
			return true
		}},
		{name: "a circle", want: "more than 10 redirects", spoil: func(_ int64, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}},
		{name: "to no address", want: "redirects to no address", spoil: func(_ int64, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "http://%zz/?key=SECRET")
			w.WriteHeader(http.StatusFound)
			return true
		}},
		{name: "much later", want: "429 Too Many Requests: it asks to come back after 10m0s", spoil: func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}},
	} {
		var n atomic.Int64
		address, folder := web(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodHead && tt.spoil(n.Add(1), w, r) {
					return
				}
				if w.Header().Get("ETag") == "" {
					w.Header().Set("ETag", `"one"`)
				}
				h.ServeHTTP(w, r)
			})
		})
		put(t, folder, "model.safetensors", body)
		f, err := openWeb(t, address+"/model.safetensors")
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got := make([]byte, 10_000)
		begun := time.Now()
		_, err = f.ReadAt(got, 5000)
		if tt.want == "" && (err != nil || !bytes.Equal(got, body[5000:15000])) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "SECRET")) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.changed != errors.Is(err, usage.ErrSource) {
			t.Errorf("%s: an error of the source: %v", tt.name, err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: took %v", tt.name, took)
		}
	}
}

// TestConfigOfIndex: beside an index a config that is not there is none, and one that a server
// fails to bring is not taken for none.
func TestConfigOfIndex(t *testing.T) {
	for status, want := range map[int]string{
		http.StatusNotFound: "", http.StatusForbidden: "", http.StatusOK: "", http.StatusInternalServerError: "config.json: 500", http.StatusTooManyRequests: "config.json: 429",
	} {
		address, folder := web(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "config.json") && status != http.StatusOK {
					w.Header().Set("Retry-After", "600") // not to wait here
					w.WriteHeader(status)
					return
				}
				h.ServeHTTP(w, r)
			})
		})
		put(t, folder, "config.json", []byte("{}"))
		put(t, folder, "m.safetensors.index.json", []byte(`{"weight_map": {"a": "model.safetensors"}}`))
		whole, _ := open(t, address+"/m.safetensors.index.json").(interface{ Whole() (files.Source, string) }).Whole()
		names, err := whole.List(t.Context())
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) || want == "" && (err != nil || (len(names) == 3) != (status == http.StatusOK)) {
			t.Errorf("%d: %q, %v", status, names, err)
		}
	}
}

// TestChangedElsewhere: a file to which an address redirects is held to its tag there, and
// an address that no longer gives access is resolved anew.
func TestChangedElsewhere(t *testing.T) {
	body := noise(50_000)
	tag, expired := `"one"`, false
	elsewhere, folder := web(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if expired != (r.URL.Query().Get("signature") == "2") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("ETag", tag)
			h.ServeHTTP(w, r)
		})
	})
	put(t, folder, "model.safetensors", body)
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signature := "1"
		if expired {
			signature = "2"
		}
		http.Redirect(w, r, elsewhere+"/model.safetensors?signature="+signature, http.StatusTemporaryRedirect)
	}))
	defer first.Close()
	f, err := openWeb(t, first.URL+"/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1000)
	for _, expired = range []bool{false, true} {
		if _, err := f.ReadAt(got, 2000); err != nil || !bytes.Equal(got, body[2000:3000]) {
			t.Errorf("expired %v: %v", expired, err)
		}
	}
	tag = `"two"`
	if _, err := f.ReadAt(got, 2000); !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("changed: %v", err)
	}
}

// TestIPv6: an address may name its host by number.
func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no such address on this machine")
	}
	folder := t.TempDir()
	s := &http.Server{Handler: http.FileServer(http.Dir(folder))}
	go s.Serve(l)
	defer s.Close()
	put(t, folder, "model.safetensors", noise(100))
	address := "http://" + l.Addr().String()
	f, err := openWeb(t, address+"/model.safetensors")
	if err != nil || f.Size() != 100 {
		t.Fatal(err)
	}
	if s := open(t, address+"/model.safetensors"); s.String() != address+"/model.safetensors" {
		t.Errorf("it is called %s", s)
	}
}
